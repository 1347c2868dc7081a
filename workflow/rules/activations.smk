# Inputs and outputs of MLPs. One job a model: a single pass serves all of its sites. It writes the
# means of their activations and, unless training streams a site's activations, a cache of them.

for cached in SCALE.models:
    job(
        f"cache_activations_{cached}",
        f"cache-activations {cached}",
        message=f"Measuring the MLP activations of {cached}",
        input=[
            LAYOUT.model(cached) / "model.safetensors",
            LAYOUT.tokens(cached) / "train.safetensors",
        ],
        output=[
            LAYOUT.activations(site.name) / file
            for site in SCALE.sites_of(cached)
            for file in ("activations.json", "statistics.safetensors")
        ],
    )
