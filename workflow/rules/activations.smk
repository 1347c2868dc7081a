# Inputs and outputs of MLPs. One job a model: a single pass serves all of its sites. It writes a
# cache, or, where training streams them, their means only.


for cached_model in SCALE.models:

    rule:
        name:
            f"cache_activations_{cached_model}".replace("-", "_").replace(".", "_")
        input:
            model=LAYOUT.model(cached_model) / "model.safetensors",
            tokens=LAYOUT.tokens(cached_model) / "train.safetensors",
        output:
            [
                LAYOUT.activations(site.name) / file
                for site in SCALE.sites_of(cached_model)
                for file in ("activations.json", "statistics.safetensors")
            ],
        log:
            LOGS / f"cache_activations_{cached_model}.log",
        benchmark:
            LOGS / f"cache_activations_{cached_model}.tsv"
        conda:
            CONDA
        threads: given("cache_activations").threads
        resources:
            mem_mb=given("cache_activations").mem_mb,
            runtime=given("cache_activations").runtime,
            gpu=given("cache_activations").gpus,
        params:
            settings=settings(
                "corpus.train_positions",
                "activations",
                "device",
                rule="cache_activations",
            ),
            cli=cli("cache-activations"),
            model=cached_model,
        message:
            (
                f"Caching the MLP activations of {cached_model}"
                if SCALE.activations.mode == "cache"
                else f"Measuring the MLP activations of {cached_model}"
            )
        shell:
            "{params.cli} {params.model} --threads {threads} 2> {log}"
