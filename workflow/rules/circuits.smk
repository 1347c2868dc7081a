# Circuits: one job for each question that the scale file asks.

CIRCUIT_FILES = [
    "paths.json",
    "graph.json",
    "circuit.html",
    "ablation.csv",
    "faithfulness.csv",
]
FEATURE_CHECKS = [LAYOUT.feature_checks] if SCALE.circuits.checks else []


rule circuit:
    input:
        weights=lambda wildcards: [
            LAYOUT.dictionary(dictionary.name) / "sae_weights.safetensors"
            for dictionary in SCALE.circuit_transcoders(
                SCALE.circuit_case(wildcards.case).model
            )
        ],
        model=lambda wildcards: LAYOUT.model(SCALE.circuit_case(wildcards.case).model)
        / "model.safetensors",
        tokens=lambda wildcards: LAYOUT.tokens(
            SCALE.circuit_case(wildcards.case).model
        )
        / "train.safetensors",
    output:
        [LAYOUT.circuit("{case}") / file for file in CIRCUIT_FILES],
    log:
        LOGS / "circuit_{case}.log",
    benchmark:
        LOGS / "circuit_{case}.tsv"
    conda:
        CONDA
    threads: given("circuit").threads
    resources:
        mem_mb=given("circuit").mem_mb,
        runtime=given("circuit").runtime,
        gpu=given("circuit").gpus,
    params:
        settings=lambda wildcards: settings(
            "corpus.train_positions",
            "circuits.n_paths",
            "circuits.iterations",
            "circuits.text_contexts",
            "device",
            rule="circuit",
            case=SCALE.circuit_case(wildcards.case).model_dump(),
        ),
        cli=cli("circuit"),
    message:
        "Finding the circuit {wildcards.case}"
    shell:
        "{params.cli} --case {wildcards.case} --threads {threads} > {log} 2>&1"


if FEATURE_CHECKS:

    rule check_features:
        input:
            weights=[
                LAYOUT.dictionary(dictionary.name) / "sae_weights.safetensors"
                for model in dict.fromkeys(
                    check.model for check in SCALE.circuits.checks
                )
                for dictionary in SCALE.circuit_transcoders(model)
            ],
            models=[
                LAYOUT.model(check.model) / "model.safetensors"
                for check in SCALE.circuits.checks
            ],
        output:
            FEATURE_CHECKS,
        log:
            LOGS / "check_features.log",
        benchmark:
            LOGS / "check_features.tsv"
        conda:
            CONDA
        threads: given("circuit").threads
        resources:
            mem_mb=given("circuit").mem_mb,
            runtime=given("circuit").runtime,
            gpu=given("circuit").gpus,
        params:
            settings=settings(
                "corpus.train_positions",
                "circuits.checks",
                "device",
                rule="circuit",
            ),
            cli=cli("check-features"),
        message:
            "Checking features on texts"
        shell:
            "{params.cli} --threads {threads} 2> {log}"
