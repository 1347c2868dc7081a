# Circuits: one job for all questions that the scale file asks of a model, and checks of features.

FEATURE_CHECKS = [LAYOUT.feature_checks] if SCALE.circuits.checks else []
CASE_TABLES = [  # of every circuit, for the page
    "paths.json",
    "ablation.csv",
    "faithfulness.csv",
    "controls.csv",
    "steering.csv",
    "errors.csv",
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
        f"circuit --all-of {model}",
        message=f"Finding the circuits of {model}",
        input=[*traced(model), LAYOUT.tokens(model) / "train.safetensors"],
        output=[
            LAYOUT.circuit(case.name) / file
            for case in SCALE.circuits.cases
            if case.model == model
            for file in (*CASE_TABLES, "graph.json", "circuit.html")
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
