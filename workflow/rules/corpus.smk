# Text: fetched and split by document, then turned into rows of tokens for each model.


rule fetch_corpus:
    input:
        local_files(SCALE.corpus.source),
    output:
        LAYOUT.documents,
    log:
        LOGS / "fetch_corpus.log",
    benchmark:
        LOGS / "fetch_corpus.tsv"
    conda:
        CONDA
    threads: given("fetch_corpus").threads
    resources:
        mem_mb=given("fetch_corpus").mem_mb,
        runtime=given("fetch_corpus").runtime,
    params:
        settings=settings(
            "seed",
            "corpus.source",
            "corpus.context_length",
            "corpus.eval_documents",
            "corpus.eval_contexts",
            rule="fetch_corpus",
        ),
        cli=cli("fetch-corpus"),
    message:
        "Fetching the corpus"
    shell:
        "{params.cli} --threads {threads} 2> {log}"


rule tokenize:
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
    conda:
        CONDA
    threads: given("tokenize").threads
    resources:
        mem_mb=given("tokenize").mem_mb,
        runtime=given("tokenize").runtime,
    params:
        settings=lambda wildcards: settings(
            "seed",
            "corpus.context_length",
            "corpus.pack_documents",
            "corpus.train_contexts",
            "corpus.eval_contexts",
            ("models", wildcards.model, "bos_token"),
            rule="tokenize",
        ),
        cli=cli("tokenize"),
    message:
        "Tokenizing the corpus for {wildcards.model}"
    shell:
        "{params.cli} {wildcards.model} --threads {threads} 2> {log}"


rule corpus_manifest:
    input:
        LAYOUT.documents,
        [LAYOUT.tokens(model) / "tokens.json" for model in SCALE.models],
    output:
        LAYOUT.corpus_manifest,
    log:
        LOGS / "corpus_manifest.log",
    benchmark:
        LOGS / "corpus_manifest.tsv"
    conda:
        CONDA
    threads: 1
    resources:
        mem_mb=given("tokenize").mem_mb,
        runtime=given("tokenize").runtime,
    params:
        cli=cli("manifest"),
    message:
        "Recording documents, splits and hashes"
    shell:
        "{params.cli} 2> {log}"
