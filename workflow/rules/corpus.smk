# Text: fetched and split by document, then turned into rows of tokens for each model.


rule fetch_corpus:
    message:
        "Fetching the corpus"
    output:
        LAYOUT.documents,
    log:
        LOGS / "fetch_corpus.log",
    benchmark:
        LOGS / "fetch_corpus.tsv"
    params:
        settings=settings("corpus"),
        cli=cli("fetch-corpus"),
    conda:
        CONDA
    threads: given("fetch_corpus").threads
    resources:
        mem_mb=given("fetch_corpus").mem_mb,
        runtime=given("fetch_corpus").runtime,
    shell:
        "{params.cli} --threads {threads} 2> {log}"


rule tokenize:
    message:
        "Tokenizing the corpus for {wildcards.model}"
    input:
        documents=LAYOUT.documents,
        tokenizer=LAYOUT.model("{model}") / "tokenizer.json",
    output:
        multiext(
            f"{LAYOUT.tokens('{model}')}/",
            "train.safetensors",
            "eval.safetensors",
            "tokens.json",
        ),
    log:
        LOGS / "tokenize_{model}.log",
    benchmark:
        LOGS / "tokenize_{model}.tsv"
    params:
        settings=settings("corpus"),
        cli=cli("tokenize"),
    conda:
        CONDA
    threads: given("tokenize").threads
    resources:
        mem_mb=given("tokenize").mem_mb,
        runtime=given("tokenize").runtime,
    shell:
        "{params.cli} {wildcards.model} --threads {threads} 2> {log}"


rule corpus_manifest:
    message:
        "Recording documents, splits and hashes"
    input:
        LAYOUT.documents,
        [LAYOUT.tokens(model) / "tokens.json" for model in SCALE.models],
    output:
        LAYOUT.corpus_manifest,
    log:
        LOGS / "corpus_manifest.log",
    params:
        cli=cli("manifest"),
    conda:
        CONDA
    threads: 1
    resources:
        mem_mb=given("tokenize").mem_mb,
        runtime=given("tokenize").runtime,
    shell:
        "{params.cli} 2> {log}"
