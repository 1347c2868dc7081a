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
    STUDIED = SCALE.greater_than.model

    rule study_greater_than:
        input:
            weights=[
                LAYOUT.dictionary(dictionary.name) / "sae_weights.safetensors"
                for dictionary in [
                    *SCALE.circuit_transcoders(STUDIED),
                    *SCALE.headlines(STUDIED, "mlp_out_sae"),
                ]
            ],
            model=LAYOUT.model(STUDIED) / "model.safetensors",
        output:
            GREATER_THAN_TABLES,
        log:
            LOGS / "study_greater_than.log",
        benchmark:
            LOGS / "study_greater_than.tsv"
        conda:
            CONDA
        threads: given("greater_than").threads
        resources:
            mem_mb=given("greater_than").mem_mb,
            runtime=given("greater_than").runtime,
            gpu=given("greater_than").gpus,
        params:
            settings=settings(
                "seed",
                "corpus.train_positions",
                "circuits.n_paths",
                "circuits.iterations",
                "greater_than",
                "device",
                rule="greater_than",
            ),
            cli=cli("greater-than"),
        message:
            "Studying greater-than"
        shell:
            "{params.cli} --threads {threads} 2> {log}"
