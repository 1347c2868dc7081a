# The greater-than case study: where it is computed, and with how few features.

GREATER_THAN_TABLES = [
    LAYOUT.greater_than / file
    for file in (
        "summary.json",
        "where.csv",
        "metric.csv",
        "curves.csv",
        "features.csv",
        "features_by_year.csv",
        "recurring.csv",
        "paths.csv",
    )
]

if SCALE.greater_than is not None:
    job(
        "study_greater_than",
        "greater-than",
        message="Studying greater-than",
        input=[
            *traced(SCALE.greater_than.model),
            *weights(SCALE.headlines(SCALE.greater_than.model, "mlp_out_sae")),
        ],
        output=GREATER_THAN_TABLES,
    )
