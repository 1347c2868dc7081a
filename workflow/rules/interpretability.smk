# What features are about: examples, automatic measures, blind studies.

from transcoders.config import RATED_KINDS

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
    RATED = [SCALE.rated(kind).name for kind in RATED_KINDS]
    FEATURE_PAGES += [LAYOUT.feature_pages(name) for name in RATED]
    RATED_MODEL = LAYOUT.model(SCALE.interpretability.rated_site.model)
    OBSERVED = [LAYOUT.observed / "text.safetensors"] + [
        LAYOUT.observed / name / file
        for name in [
            *(dictionary.name for dictionary in SCALE.observed_dictionaries),
            SCALE.interpretability.baseline,
        ]
        for file in ("features.parquet", "examples.parquet", "background.safetensors")
    ]
    LOADED = [
        *weights(SCALE.observed_dictionaries),
        RATED_MODEL / "model.safetensors",
    ]

    job(
        "gather_examples",
        "gather-examples",
        message="Looking at what features do on held-out text",
        input=[*LOADED, RATED_MODEL / "tokenizer.json", LAYOUT.documents],
        output=OBSERVED,
    )

    job(
        "measure_features",
        "measure-features",
        message="Measuring features",
        input=OBSERVED,
        output=[LAYOUT.automatic, LAYOUT.automatic_summary],
    )

    job(
        "study_features",
        "study-features",
        message="Blind studies of features",
        input=[*OBSERVED, *LOADED],
        output=[LAYOUT.systematic, LAYOUT.systematic_summary],
    )

    job(
        "feature_pages_{rated}",
        "feature-pages {wildcards.rated}",
        message="Pages of features of {wildcards.rated}",
        input=[*OBSERVED, *LOADED],
        output=directory(LAYOUT.feature_pages("{rated}")),
    )

    job(
        "table1",
        "table1",
        message="Table 1: what raters said",
        input=[
            *OBSERVED,
            RATED_MODEL / "tokenizer.json",
        ],
        output=[
            LAYOUT.table1,
            LAYOUT.table1.with_suffix(".json"),
            LAYOUT.rated_features,
        ],
        contents=[sha256(path) for path in sorted(LAYOUT.ratings.glob("*.json"))],
    )

    if WORKED:
        job(
            "table4",
            "case-studies",
            message="Table 4: worked case studies again",
            input=[*OBSERVED, *LOADED, *map(ancient, STUDY_FILES)],
            output=[
                *TABLE4,
                *(file for study in WORKED for file in CARRIED_OUT[study]),
            ],
            contents=[sha256(path) for path in STUDY_FILES],
        )
