# Dictionaries. One job a group: its dictionaries share one pass over a site's activations.

for group in SCALE.all_groups:

    rule:
        name:
            f"train_{group.name}".replace("-", "_").replace(".", "_")
        input:
            cache=LAYOUT.activations(group.site.name) / "cache.json",
            # Committed, and checkout times mean nothing; only its hash is recorded.
            manifest=ancient(LAYOUT.corpus_manifest),
        output:
            [
                LAYOUT.dictionary(dictionary.name) / file
                for dictionary in SCALE.dictionaries
                if dictionary.group == group.name
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
        params:
            settings=settings(
                "seed",
                "training",
                "device",
                rule="train",
                learning_rate=group.learning_rate,
                dictionaries=[
                    (entry.kind, entry.l1_coefficient, entry.k)
                    for entry in group.dictionaries
                ],
            ),
            cli=cli("train"),
            group=group.name,
        message:
            f"Training the group {group.name}"
        shell:
            "{params.cli} {params.group} --threads {threads} 2> {log}"
