# Circuits: one job for each question that the scale file asks, and checks of single features.
# Then the features of all circuits get names (interpretability.smk), and each circuit a page.

# Names of features come from held-out text, and the scale says how much in `interpretability`.
LABELS = [LAYOUT.labels] if SCALE.labelled_models else []
PAGE_OF_CIRCUIT = ("circuit.html", "graph.json", "graph-metadata.json")
CIRCUIT_PAGES = [
    LAYOUT.circuit(case.name) / file
    for case in SCALE.circuits.cases
    for file in PAGE_OF_CIRCUIT
]
FEATURE_CHECKS = [LAYOUT.feature_checks] if SCALE.circuits.checks else []


def traced(model):
    """What it takes to find circuits in a model."""
    return [
        *weights(SCALE.circuit_transcoders(model)),
        LAYOUT.model(model) / "model.safetensors",
    ]


def traced_in_case(wildcards):
    model = SCALE.circuit_case(wildcards.case).model
    return [*traced(model), LAYOUT.tokens(model) / "train.safetensors"]


job(
    "circuit_{case}",
    "circuit --case {wildcards.case}",
    message="Finding the circuit {wildcards.case}",
    input=traced_in_case,
    output=[
        directory(LAYOUT.circuit("{case}") / "features"),
        *(
            LAYOUT.circuit("{case}") / file
            for file in ("paths.json", "ablation.csv", "faithfulness.csv")
        ),
    ],
)

job(
    "circuit_page_{case}",
    "circuit-page {wildcards.case}",
    message="The page of the circuit {wildcards.case}",
    input=[LAYOUT.circuit("{case}") / "paths.json", *LABELS],
    output=[LAYOUT.circuit("{case}") / file for file in PAGE_OF_CIRCUIT],
)

if FEATURE_CHECKS:
    job(
        "check_features",
        "check-features",
        message="Checking features on texts",
        input=[
            file
            for model in dict.fromkeys(check.model for check in SCALE.circuits.checks)
            for file in traced(model)
        ],
        output=FEATURE_CHECKS,
    )
