# What each dictionary costs the model. One job a site, then one table for all.


rule evaluate:
    input:
        weights=lambda wildcards: [
            LAYOUT.dictionary(dictionary.name) / "sae_weights.safetensors"
            for dictionary in SCALE.dictionaries_of(SCALE.site(wildcards.site))
        ],
        model=lambda wildcards: LAYOUT.model(SCALE.site(wildcards.site).model)
        / "model.safetensors",
        tokens=lambda wildcards: LAYOUT.tokens(SCALE.site(wildcards.site).model)
        / "eval.safetensors",
        documents=LAYOUT.documents,
        statistics=LAYOUT.activations("{site}") / "statistics.safetensors",
    output:
        table=LAYOUT.site_evaluation("{site}"),
        by_document=LAYOUT.site_evaluation_by_document("{site}"),
    log:
        LOGS / "evaluate_{site}.log",
    benchmark:
        LOGS / "evaluate_{site}.tsv"
    conda:
        CONDA
    threads: given("evaluate").threads
    resources:
        mem_mb=given("evaluate").mem_mb,
        runtime=given("evaluate").runtime,
        gpu=given("evaluate").gpus,
    params:
        settings=lambda wildcards: settings(
            "seed",
            "corpus.metric_positions",
            "evaluation",
            "device",
            rule="evaluate",
            headlines=[
                dictionary.name
                for dictionary in SCALE.dictionaries_of(SCALE.site(wildcards.site))
                if dictionary.headline
            ],
        ),
        cli=cli("evaluate"),
    message:
        "Evaluating the dictionaries of {wildcards.site}"
    shell:
        "{params.cli} {wildcards.site} --threads {threads} 2> {log}"


rule collect_tables:
    input:
        [LAYOUT.site_evaluation(site.name) for site in SCALE.all_sites],
        [LAYOUT.site_evaluation_by_document(site.name) for site in SCALE.all_sites],
    output:
        LAYOUT.evaluation,
        LAYOUT.evaluation_by_document,
    log:
        LOGS / "collect_tables.log",
    benchmark:
        LOGS / "collect_tables.tsv"
    conda:
        CONDA
    threads: 1
    resources:
        mem_mb=given("notebook").mem_mb,
        runtime=given("notebook").runtime,
    params:
        cli=cli("collect-tables"),
    message:
        "Joining the tables of all sites"
    shell:
        "{params.cli} 2> {log}"


rule evaluation:
    input:
        LAYOUT.evaluation,
        LAYOUT.evaluation_by_document,


if SCALE.learning_rates:
    RATED = SCALE.learning_rate_dictionaries

    # Optional: no other rule asks for these dictionaries.
    rule learning_rates:
        input:
            weights=[
                LAYOUT.dictionary(entry.name) / "sae_weights.safetensors"
                for entry in RATED
            ],
            models=[LAYOUT.model(e.site.model) / "model.safetensors" for e in RATED],
            tokens=[LAYOUT.tokens(e.site.model) / "eval.safetensors" for e in RATED],
            documents=LAYOUT.documents,
            statistics=[
                LAYOUT.activations(e.site.name) / "statistics.safetensors"
                for e in RATED
            ],
        output:
            LAYOUT.learning_rates,
        log:
            LOGS / "learning_rates.log",
        benchmark:
            LOGS / "learning_rates.tsv"
        conda:
            CONDA
        threads: given("evaluate").threads
        resources:
            mem_mb=given("evaluate").mem_mb,
            runtime=given("evaluate").runtime,
            gpu=given("evaluate").gpus,
        params:
            settings=settings(
                "seed",
                "corpus.metric_positions",
                "evaluation",
                "device",
                rule="evaluate",
            ),
            cli=cli("compare-learning-rates"),
        message:
            "Comparing learning rates"
        shell:
            "{params.cli} --threads {threads} 2> {log}"
