# Circuits: one job for all questions that the scale file asks of a model, and checks of features.
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
CASE_TABLES = [  # of every circuit, for the page
    "paths.json",
    "ablation.csv",
    "faithfulness.csv",
    "controls.csv",
    "steering.csv",
    "errors.csv",
    "attention.csv",
]


def traced(model):
    """What it takes to find circuits in a model."""
    return [
        *weights(SCALE.circuit_transcoders(model)),
        LAYOUT.model(model) / "model.safetensors",
    ]


ASKED = list(dict.fromkeys(case.model for case in SCALE.circuits.cases))

for model in ASKED:
    job(
        f"find_circuits_{model}",
        f"find-circuits {model}",
        message=f"Finding the circuits of {model}",
        input=[*traced(model), LAYOUT.tokens(model) / "train.safetensors"],
        output=[
            file
            for case in SCALE.circuits.cases
            if case.model == model
            for file in (
                directory(LAYOUT.circuit(case.name) / "features"),
                *(LAYOUT.circuit(case.name) / table for table in CASE_TABLES),
            )
        ],
    )

if ASKED:
    job(
        "measure_replacement",
        "measure-replacement",
        message="Measuring the model with its MLPs replaced",
        input=[
            file
            for model in ASKED
            for file in (
                *traced(model),
                LAYOUT.tokens(model) / "train.safetensors",
                LAYOUT.tokens(model) / "eval.safetensors",
            )
        ],
        output=LAYOUT.replacement,
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
