# Dictionaries. One job a group: its dictionaries share one pass over the activations of its sites.


def activations_of(group):
    """What a training job reads: a cache, or what the model needs to make the activations."""
    folders = [LAYOUT.activations(site.name) for site in group.sites]
    records = [folder / "activations.json" for folder in folders]
    if not SCALE.streams(group):
        return records
    return [
        *records,
        *(folder / "statistics.safetensors" for folder in folders),
        LAYOUT.model(group.model) / "model.safetensors",
        LAYOUT.tokens(group.model) / "train.safetensors",
    ]


for group in SCALE.all_groups:
    job(
        f"train_{group.name}",
        f"train {group.name}",
        message=f"Training the group {group.name}",
        # The manifest is committed, and checkout times mean nothing; only its hash is recorded.
        input=[*activations_of(group), ancient(LAYOUT.corpus_manifest)],
        output=[
            LAYOUT.dictionary(dictionary.name) / file
            for dictionary in SCALE.dictionaries_in(group)
            for file in ("cfg.json", "sae_weights.safetensors", "training.csv")
        ],
    )
