# Language models: fetched once, written as plain Hugging Face folders in fp32.


rule fetch_model:
    input:
        lambda wildcards: local_files(SCALE.models[wildcards.model].source),
    output:
        multiext(
            f"{LAYOUT.model('{model}')}/",
            "config.json",
            "model.safetensors",
            "tokenizer.json",
            "source.json",
        ),
    log:
        LOGS / "fetch_model_{model}.log",
    benchmark:
        LOGS / "fetch_model_{model}.tsv"
    conda:
        CONDA
    threads: given("fetch_model").threads
    resources:
        mem_mb=given("fetch_model").mem_mb,
        runtime=given("fetch_model").runtime,
    params:
        settings=lambda wildcards: settings(
            "seed", ("models", wildcards.model), rule="fetch_model"
        ),
        cli=cli("fetch-model"),
    message:
        "Fetching {wildcards.model}"
    shell:
        "{params.cli} {wildcards.model} --threads {threads} 2> {log}"
