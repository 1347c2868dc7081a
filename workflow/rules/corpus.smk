# Text: fetched and split by document, then turned into rows of tokens for each model.

job(
    "fetch_corpus",
    "fetch-corpus",
    message="Fetching the corpus",
    input=[],
    output=LAYOUT.documents,
    contents=states_of_files(*SCALE.corpus.source),
)

job(
    "tokenize_{model}",
    "tokenize {wildcards.model}",
    message="Tokenizing the corpus for {wildcards.model}",
    input=[LAYOUT.documents, LAYOUT.model("{model}") / "tokenizer.json"],
    output=[
        LAYOUT.tokens("{model}") / file
        for file in ("train.safetensors", "eval.safetensors", "tokens.json")
    ],
)

job(
    "corpus_manifest",
    "manifest",
    message="Recording documents, splits and hashes",
    input=[
        LAYOUT.documents,
        *(LAYOUT.tokens(model) / "tokens.json" for model in SCALE.models),
    ],
    output=LAYOUT.corpus_manifest,
)
