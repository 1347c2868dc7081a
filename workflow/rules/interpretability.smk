# What features are about: examples, automatic measures, blind studies.

from transcoders.checksums import sha256

FEATURE_PAGES = []
STUDY_FILES = sorted(LAYOUT.study_scripts.glob("*.yaml"))
WORKED = [path.stem for path in STUDY_FILES]
CARRIED_OUT = {
    study: [
        LAYOUT.carried_out(study) / file for file in ("transcript.json", "answers.json")
    ]
    for study in WORKED
}
TABLE4 = [LAYOUT.table4] if WORKED else []
if SCALE.interpretability is not None:
    FEATURE_PAGES += [
        LAYOUT.feature_pages(SCALE.rated(kind).name)
        for kind in ("transcoder", "mlp_in_sae")
    ]
    RATED_MODEL = SCALE.interpretability.rated_site.model
    OBSERVED_WEIGHTS = [
        LAYOUT.dictionary(dictionary.name) / "sae_weights.safetensors"
        for dictionary in SCALE.observed_dictionaries
    ]
    OBSERVED = [LAYOUT.observed / "text.safetensors"] + [
        LAYOUT.observed / name / file
        for name in [
            *(dictionary.name for dictionary in SCALE.observed_dictionaries),
            SCALE.interpretability.baseline,
        ]
        for file in (
            "features.parquet",
            "examples.parquet",
            "background.safetensors",
        )
    ]

    rule gather_examples:
        input:
            weights=OBSERVED_WEIGHTS,
            model=LAYOUT.model(RATED_MODEL) / "model.safetensors",
            tokenizer=LAYOUT.model(RATED_MODEL) / "tokenizer.json",
            documents=LAYOUT.documents,
        output:
            OBSERVED,
        log:
            LOGS / "gather_examples.log",
        benchmark:
            LOGS / "gather_examples.tsv"
        conda:
            CONDA
        threads: given("gather_examples").threads
        resources:
            mem_mb=given("gather_examples").mem_mb,
            runtime=given("gather_examples").runtime,
            gpu=given("gather_examples").gpus,
        params:
            settings=settings(
                "seed",
                "corpus",
                "interpretability",
                "device",
                rule="gather_examples",
            ),
            cli=cli("gather-examples"),
        message:
            "Looking at what features do on held-out text"
        shell:
            "{params.cli} --threads {threads} 2> {log}"

    rule measure_features:
        input:
            OBSERVED,
        output:
            LAYOUT.automatic,
            LAYOUT.automatic_summary,
        log:
            LOGS / "measure_features.log",
        benchmark:
            LOGS / "measure_features.tsv"
        conda:
            CONDA
        threads: given("measure_features").threads
        resources:
            mem_mb=given("measure_features").mem_mb,
            runtime=given("measure_features").runtime,
        params:
            settings=settings("seed", rule="measure_features"),
            cli=cli("measure-features"),
        message:
            "Measuring features"
        shell:
            "{params.cli} --threads {threads} 2> {log}"

    rule study_features:
        input:
            observed=OBSERVED,
            weights=OBSERVED_WEIGHTS,
            model=LAYOUT.model(RATED_MODEL) / "model.safetensors",
        output:
            LAYOUT.systematic,
            LAYOUT.systematic_summary,
        log:
            LOGS / "study_features.log",
        benchmark:
            LOGS / "study_features.tsv"
        conda:
            CONDA
        threads: given("study_features").threads
        resources:
            mem_mb=given("study_features").mem_mb,
            runtime=given("study_features").runtime,
            gpu=given("study_features").gpus,
        params:
            settings=settings(
                "seed",
                "interpretability.studied_features",
                "device",
                rule="study_features",
            ),
            cli=cli("study-features"),
        message:
            "Blind studies of features"
        shell:
            "{params.cli} --threads {threads} 2> {log}"

    rule feature_pages:
        input:
            observed=OBSERVED,
            weights=OBSERVED_WEIGHTS,
            model=LAYOUT.model(RATED_MODEL) / "model.safetensors",
        output:
            directory(LAYOUT.feature_pages("{rated}")),
        log:
            LOGS / "feature_pages_{rated}.log",
        benchmark:
            LOGS / "feature_pages_{rated}.tsv"
        conda:
            CONDA
        threads: given("study_features").threads
        resources:
            mem_mb=given("study_features").mem_mb,
            runtime=given("study_features").runtime,
            gpu=given("study_features").gpus,
        params:
            settings=settings(
                "seed",
                "interpretability.paged_features",
                "device",
                rule="study_features",
            ),
            cli=cli("feature-pages"),
        message:
            "Pages of features of {wildcards.rated}"
        shell:
            "{params.cli} {wildcards.rated} --threads {threads} 2> {log}"

    rule table1:
        input:
            observed=OBSERVED,
            tokenizer=LAYOUT.model(RATED_MODEL) / "tokenizer.json",
            ratings=sorted(LAYOUT.ratings.glob("*.json")),
        output:
            LAYOUT.table1,
            LAYOUT.table1.with_suffix(".json"),
        log:
            LOGS / "table1.log",
        benchmark:
            LOGS / "table1.tsv"
        conda:
            CONDA
        threads: 1
        resources:
            mem_mb=given("measure_features").mem_mb,
            runtime=given("measure_features").runtime,
        params:
            settings=settings(
                "seed", "interpretability.rated_features", rule="measure_features"
            ),
            cli=cli("table1"),
        message:
            "Table 1: what raters said"
        shell:
            "{params.cli} 2> {log}"

    if WORKED:

        rule table4:
            input:
                observed=OBSERVED,
                weights=OBSERVED_WEIGHTS,
                model=LAYOUT.model(RATED_MODEL) / "model.safetensors",
                studies=ancient(STUDY_FILES),
            output:
                LAYOUT.table4,
                list(CARRIED_OUT.values()),
            log:
                LOGS / "table4.log",
            benchmark:
                LOGS / "table4.tsv"
            conda:
                CONDA
            threads: given("study_features").threads
            resources:
                mem_mb=given("study_features").mem_mb,
                runtime=given("study_features").runtime,
                gpu=given("study_features").gpus,
            params:
                # Their content, since times say nothing in a fresh clone.
                settings=settings(
                    "device",
                    rule="study_features",
                    studies=[sha256(study) for study in STUDY_FILES],
                ),
                cli=cli("case-studies"),
            message:
                "Table 4: worked case studies again"
            shell:
                "{params.cli} --threads {threads} 2> {log}"
