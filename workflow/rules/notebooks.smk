# Figures and pages, from tables alone: none of these rules reads a model or activations.

from transcoders.claims import load_claims
from transcoders.checksums import sha256

CASES = [case.name for case in SCALE.circuits.cases]


PAGES = []
if SCALE.groups:
    PAGES += [
        Page(
            name="figure3",
            notebook="figure3",
            message="Figure 3: sparsity against faithfulness",
            tables=[LAYOUT.evaluation, LAYOUT.evaluation_by_document],
            figures=["fig3_tradeoff"],
        ),
        Page(
            name="training_curves",
            notebook="training",
            message="Training curves",
            tables=[
                LAYOUT.dictionary(dictionary.name) / "training.csv"
                for dictionary in SCALE.dictionaries
            ],
            figures=["training_curves"],
        ),
    ]
if CASES:
    PAGES.append(
        Page(
            name="circuits",
            notebook="circuits",
            message="Circuits",
            tables=[
                LAYOUT.circuit(case) / file
                for case in CASES
                for file in ("paths.json", "ablation.csv", "faithfulness.csv")
            ]
            + FEATURE_CHECKS,
            figures=["circuits_verification", *(f"circuit_{case}" for case in CASES)],
        )
    )
if SCALE.greater_than is not None:
    PAGES.append(
        Page(
            name="greater_than_page",
            notebook="greater_than",
            message="Figures 4 and 5: greater-than",
            tables=GREATER_THAN_TABLES,
            figures=["greater_than_where", "fig4_greater_than", "fig5_dla"],
        )
    )
if SCALE.interpretability is not None:
    PAGES += [
        Page(
            name="interpretability_page",
            notebook="interpretability",
            message="Interpretability, measured automatically",
            tables=[
                LAYOUT.automatic,
                LAYOUT.automatic_summary,
                LAYOUT.table1,
                LAYOUT.evaluation,
            ],
            figures=["interpretability_automatic"],
        ),
        Page(
            name="case_studies_page",
            notebook="case_studies",
            message="Blind case studies",
            tables=[LAYOUT.systematic, LAYOUT.systematic_summary, *TABLE4],
            figures=["case_studies_systematic"],
        ),
        *(
            Page(
                name=f"case_study_{study.replace('-', '_')}",
                notebook=f"case_study_{study}",
                message=f"Case study: {study}",
                tables=[
                    LAYOUT.study_scripts / f"{study}.yaml",
                    LAYOUT.table4,
                    *CARRIED_OUT[study],
                ],
                figures=[],
                job=f"case-study-page {study}",
            )
            for study in WORKED
        ),
    ]


# Claims are judged by the tables of the pages that show them.
LISTED_CLAIMS = load_claims(LAYOUT.listed_claims)
CLAIMS = Page(
    name="claims_page",
    notebook="claims",
    message="The paper's claims, and what came of them",
    tables=[LAYOUT.claims, LAYOUT.environment],
    figures=[],
)


rule judge_claims:
    input:
        listed=LAYOUT.listed_claims,
        tables=[
            table
            for page in PAGES
            if page.notebook in {claim.page for claim in LISTED_CLAIMS}
            for table in page.tables
        ],
    output:
        LAYOUT.claims,
    log:
        LOGS / "judge_claims.log",
    benchmark:
        LOGS / "judge_claims.tsv"
    conda:
        CONDA
    threads: given("notebook").threads
    resources:
        mem_mb=given("notebook").mem_mb,
        runtime=given("notebook").runtime,
    params:
        cli=cli("judge-claims"),
    message:
        "Judging the paper's claims"
    shell:
        "{params.cli} --threads {threads} 2> {log}"


# After the weights, so that it tells of the run that made them. The manifest is committed, and in a
# fresh clone times mean nothing: a manifest that happens to be newer must not ask for all weights.
rule record_environment:
    input:
        WEIGHTS,
        ancient(LAYOUT.corpus_manifest),
    output:
        LAYOUT.environment,
    log:
        LOGS / "record_environment.log",
    benchmark:
        LOGS / "record_environment.tsv"
    conda:
        CONDA
    threads: given("notebook").threads
    resources:
        mem_mb=given("notebook").mem_mb,
        runtime=given("notebook").runtime,
    params:
        settings=sha256(LAYOUT.config),
        cli=cli("record-environment"),
    message:
        "What this ran on"
    shell:
        "{params.cli} --threads {threads} 2> {log}"


PAGES.append(CLAIMS)


for page in PAGES:

    rule:
        name:
            page.name
        input:
            page.tables,
        output:
            figures=[page.in_report(path) for path in drawn(*page.figures)],
            pages=[page.in_report(path) for path in rendered(page)],
        log:
            LOGS / f"{page.name}.log",
        benchmark:
            LOGS / f"{page.name}.tsv"
        conda:
            CONDA
        threads: given("notebook").threads
        resources:
            mem_mb=given("notebook").mem_mb,
            runtime=given("notebook").runtime,
        params:
            settings=settings("description", rule="notebook"),
            cli=cli(page.job.format(name=page.notebook)),
        message:
            page.message
        shell:
            "{params.cli} --threads {threads} 2> {log}"


if SCALE.greater_than is not None:

    rule greater_than:
        input:
            GREATER_THAN_TABLES,
            rules.greater_than_page.output,

    rule figure4:
        input:
            drawn("fig4_greater_than"),

    rule figure5:
        input:
            drawn("fig5_dla"),


if SCALE.interpretability is not None:

    rule interpretability:
        input:
            rules.interpretability_page.output,
            FEATURE_PAGES,

    rule case_studies:
        input:
            rules.case_studies_page.output,
            [rendered(page) for page in PAGES if page.name.startswith("case_study_")],


# The page from which all others are reached: it links to figures and pages.
rule landing_page:
    input:
        LAYOUT.claims,
        [drawn(*page.figures) for page in PAGES],
        [rendered(page) for page in PAGES],
    output:
        LAYOUT.landing_page,
    log:
        LOGS / "landing_page.log",
    benchmark:
        LOGS / "landing_page.tsv"
    conda:
        CONDA
    threads: given("notebook").threads
    resources:
        mem_mb=given("notebook").mem_mb,
        runtime=given("notebook").runtime,
    params:
        settings=settings("description", rule="notebook"),
        cli=cli("landing-page"),
    message:
        "The page to begin with"
    shell:
        "{params.cli} --threads {threads} 2> {log}"


rule claims:
    input:
        LAYOUT.claims,
        rendered(CLAIMS),


rule figures:
    input:
        [drawn(*page.figures) for page in PAGES],


rule notebooks:
    input:
        [rendered(page) for page in PAGES],
        LAYOUT.landing_page,
