# Language models: fetched once, written as plain Hugging Face folders in fp32.

job(
    "fetch_model_{model}",
    "fetch-model {wildcards.model}",
    message="Fetching {wildcards.model}",
    input=[],
    output=[
        LAYOUT.model("{model}") / file
        for file in (
            "config.json",
            "model.safetensors",
            "tokenizer.json",
            "source.json",
        )
    ],
    contents=lambda wildcards: states_of_files(SCALE.models[wildcards.model].source),
)
