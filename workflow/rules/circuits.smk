# Circuits: one job for each question that the scale file asks, and checks of single features.

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
        LAYOUT.circuit("{case}") / file
        for file in (
            "paths.json",
            "graph.json",
            "circuit.html",
            "ablation.csv",
            "attention.csv",
            "faithfulness.csv",
        )
    ],
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
