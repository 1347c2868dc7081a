# Figures and pages, from tables alone: none of these rules reads a model or activations.


rule figure3:
    input:
        LAYOUT.evaluation,
        LAYOUT.evaluation_by_document,
    output:
        figures=multiext(str(LAYOUT.figure("fig3_tradeoff")), ".pdf", ".png"),
        pages=multiext(
            str(LAYOUT.notebook("figure3").with_suffix("")), ".ipynb", ".html"
        ),
    log:
        LOGS / "figure3.log",
    conda:
        CONDA
    threads: given("notebook").threads
    resources:
        mem_mb=given("notebook").mem_mb,
        runtime=given("notebook").runtime,
    params:
        settings=settings("description", rule="notebook"),
        cli=cli("notebook"),
    message:
        "Figure 3: sparsity against faithfulness"
    shell:
        "{params.cli} figure3 --threads {threads} 2> {log}"


rule training_curves:
    input:
        [
            LAYOUT.dictionary(dictionary.name) / "training.csv"
            for dictionary in SCALE.dictionaries
        ],
    output:
        figures=multiext(str(LAYOUT.figure("training_curves")), ".pdf", ".png"),
        pages=multiext(
            str(LAYOUT.notebook("training").with_suffix("")), ".ipynb", ".html"
        ),
    log:
        LOGS / "training_curves.log",
    conda:
        CONDA
    threads: given("notebook").threads
    resources:
        mem_mb=given("notebook").mem_mb,
        runtime=given("notebook").runtime,
    params:
        settings=settings("description", rule="notebook"),
        cli=cli("notebook"),
    message:
        "Training curves"
    shell:
        "{params.cli} training --threads {threads} 2> {log}"


CASES = [case.name for case in SCALE.circuits.cases]


rule circuits:
    input:
        [
            LAYOUT.circuit(case) / file
            for case in CASES
            for file in ("paths.json", "ablation.csv", "faithfulness.csv")
        ],
    output:
        figures=[
            LAYOUT.figure(f"{name}{suffix}")
            for name in [
                "circuits_verification",
                *(f"circuit_{case}" for case in CASES),
            ]
            for suffix in (".pdf", ".png")
        ],
        pages=multiext(
            str(LAYOUT.notebook("circuits").with_suffix("")), ".ipynb", ".html"
        ),
    log:
        LOGS / "circuits.log",
    conda:
        CONDA
    threads: given("notebook").threads
    resources:
        mem_mb=given("notebook").mem_mb,
        runtime=given("notebook").runtime,
    params:
        settings=settings("description", rule="notebook"),
        cli=cli("notebook"),
    message:
        "Circuits"
    shell:
        "{params.cli} circuits --threads {threads} 2> {log}"


rule figures:
    input:
        rules.figure3.output.figures,
        rules.training_curves.output.figures,
        rules.circuits.output.figures,


rule notebooks:
    input:
        rules.figure3.output.pages,
        rules.training_curves.output.pages,
        rules.circuits.output.pages,
