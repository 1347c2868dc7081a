# Transcoders that others trained, from the hub.


rule import_transcoder:
    output:
        LAYOUT.dictionary("{imported}") / "cfg.json",
        LAYOUT.dictionary("{imported}") / "sae_weights.safetensors",
    log:
        LOGS / "import_{imported}.log",
    benchmark:
        LOGS / "import_{imported}.tsv"
    conda:
        CONDA
    threads: given("fetch_model").threads
    resources:
        mem_mb=given("fetch_model").mem_mb,
        runtime=given("fetch_model").runtime,
    params:
        settings=lambda wildcards: settings(
            rule="fetch_model",
            source=SCALE.imported_transcoder(wildcards.imported).source.model_dump(),
            file=SCALE.imported_transcoder(wildcards.imported).file,
        ),
        cli=cli("import-transcoder"),
    message:
        "Importing {wildcards.imported}"
    shell:
        "{params.cli} {wildcards.imported} --threads {threads} 2> {log}"
