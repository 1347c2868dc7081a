# Dictionaries. One job a group: its dictionaries share one pass over a site's activations.


def activations_of(site):
    """What a training job reads: a cache, or all that the model makes the activations from."""
    folder = LAYOUT.activations(site.name)
    if SCALE.activations.mode == "cache":
        return [folder / "activations.json"]
    return [
        folder / "activations.json",
        folder / "statistics.safetensors",
        LAYOUT.model(site.model) / "model.safetensors",
        LAYOUT.tokens(site.model) / "train.safetensors",
    ]


for group in SCALE.all_groups:

    rule:
        name:
            f"train_{group.name}".replace("-", "_").replace(".", "_")
        input:
            activations=activations_of(group.site),
            # Committed, and checkout times mean nothing; only its hash is recorded.
            manifest=ancient(LAYOUT.corpus_manifest),
        output:
            [
                LAYOUT.dictionary(dictionary.name) / file
                for dictionary in SCALE.dictionaries_in(group)
                for file in ("cfg.json", "sae_weights.safetensors", "training.csv")
            ],
        log:
            LOGS / f"train_{group.name}.log",
        benchmark:
            LOGS / f"train_{group.name}.tsv"
        conda:
            CONDA
        threads: given("train").threads
        resources:
            mem_mb=given("train").mem_mb,
            runtime=given("train").runtime,
            gpu=given("train").gpus,
        params:
            settings=settings(
                "seed",
                "training",
                "device",
                rule="train",
                learning_rate=group.learning_rate,
                dictionaries=[
                    (entry.kind, entry.l1_coefficient, entry.k, entry.learning_rate)
                    for entry in group.dictionaries
                ],
            ),
            cli=cli("train"),
            group=group.name,
        message:
            f"Training the group {group.name}"
        shell:
            "{params.cli} {params.group} --threads {threads} 2> {log}"
