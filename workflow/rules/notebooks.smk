# Figures and pages, from tables alone: none of these rules reads a model or activations.

from transcoders.claims import load_claims
from transcoders.contents import BRIEF
from transcoders.documents import page_beside
from transcoders.landing import documents_of, others_judged

CASES = [case.name for case in SCALE.circuits.cases]
DOCUMENTS = documents_of(LAYOUT)


PAGES = []
if SCALE.groups:
    PAGES += [
        Page(
            name="figure3",
            notebook="figure3",
            message="Figure 3: sparsity against faithfulness",
            tables=[LAYOUT.evaluation, LAYOUT.evaluation_by_document],
            figures=["fig3_gap", "fig3_tradeoff"],
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
if SCALE.sweeps_data:
    PAGES.append(
        Page(
            name="gap_by_tokens",
            notebook="why",
            message="Why transcoders lose or win: by data, and under controls",
            tables=GAPS,
            figures=["gap_by_tokens"],
        )
    )
if CASES:
    PAGES.append(
        Page(
            name="circuits",
            notebook="circuits",
            message="Circuits",
            tables=[
                LAYOUT.circuit(case) / file for case in CASES for file in CASE_TABLES
            ]
            + [LAYOUT.replacement]
            + FEATURE_CHECKS
            + LABELS,
            figures=[
                "circuits_replacement",
                "circuits_verification",
                "circuits_controls",
                "circuits_steering",
                *(f"circuit_{case}{end}" for case in CASES for end in ("", BRIEF)),
            ],
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
                LAYOUT.rated_features,
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
JUDGING = {claim.page for claim in load_claims(LAYOUT.listed_claims)}
CLAIMS = Page(
    name="claims_page",
    notebook="claims",
    message="The paper's claims, and what was found",
    tables=[LAYOUT.claims, LAYOUT.environment],
    figures=[],
)


job(
    "judge_claims",
    "judge-claims",
    message="Judging the paper's claims",
    input=[
        LAYOUT.listed_claims,
        *(table for page in PAGES if page.notebook in JUDGING for table in page.tables),
    ],
    output=LAYOUT.claims,
)

# This comes after the weights, so that it describes the run that made them. The manifest is
# committed, and in a fresh clone times mean nothing: a manifest that happens to be newer must not
# ask for all weights.
job(
    "record_environment",
    "record-environment",
    message="Recording what this ran on",
    input=[*WEIGHTS, ancient(LAYOUT.corpus_manifest)],
    output=LAYOUT.environment,
    contents=[sha256(LAYOUT.config)],
)

PAGES.append(CLAIMS)
for page in PAGES:
    job(
        page.name,
        page.job.format(name=page.notebook),
        message=page.message,
        input=[
            *page.tables,
            *([LAYOUT.listed_claims] if page.notebook in JUDGING else []),
        ],
        output=[
            page.in_report(path) for path in [*drawn(*page.figures), *rendered(page)]
        ],
        contents=[sha256(path) for path in page.sources],
    )

# The page from which all others are reached: it links to figures and pages, and has the verdicts of
# every scale that was run.
job(
    "landing_page",
    "landing-page",
    message="The page to begin with",
    input=[
        LAYOUT.claims,
        *(Layout(name).claims for name in others_judged(SCALE.name)),
        *(file for page in PAGES for file in [*drawn(*page.figures), *rendered(page)]),
        *(LAYOUT.circuit(case) / "circuit.html" for case in CASES),
        FEATURE_BROWSER,
    ],
    output=[LAYOUT.landing_page, *(page_beside(path) for path in DOCUMENTS)],
    # They are committed, and in a fresh clone times mean nothing.
    contents=[sha256(path) for path in DOCUMENTS],
)


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
            FEATURE_BROWSER,

    rule case_studies:
        input:
            rules.case_studies_page.output,
            [rendered(page) for page in PAGES if page.name.startswith("case_study_")],


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
