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
    job(
        f"train_{group.name}",
        f"train {group.name}",
        message=f"Training the group {group.name}",
        # The manifest is committed, and checkout times mean nothing; only its hash is recorded.
        input=[*activations_of(group.site), ancient(LAYOUT.corpus_manifest)],
        output=[
            LAYOUT.dictionary(dictionary.name) / file
            for dictionary in SCALE.dictionaries_in(group)
            for file in ("cfg.json", "sae_weights.safetensors", "training.csv")
        ],
    )
