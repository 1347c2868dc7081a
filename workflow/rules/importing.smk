# Transcoders that others trained, from the hub.

job(
    "import_{imported}",
    "import-transcoder {wildcards.imported}",
    name="import_transcoder",
    message="Importing {wildcards.imported}",
    input=[],
    output=[
        LAYOUT.dictionary("{imported}") / file
        for file in ("cfg.json", "sae_weights.safetensors")
    ],
)
