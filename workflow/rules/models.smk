# Language models: fetched once, written as plain Hugging Face folders in fp32.

job(
    "fetch_model_{model}",
    "fetch-model {wildcards.model}",
    message="Fetching {wildcards.model}",
    input=lambda wildcards: local_files(SCALE.models[wildcards.model].source),
    output=[
        LAYOUT.model("{model}") / file
        for file in (
            "config.json",
            "model.safetensors",
            "tokenizer.json",
            "source.json",
        )
    ],
)
