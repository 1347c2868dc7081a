# What features are about: examples, automatic measures, blind studies.

from transcoders.config import RATED_KINDS
from transcoders.files import date_after

FEATURE_BROWSER = []
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
    LABELLED = {
        model: SCALE.labelled_dictionaries(model) for model in SCALE.labelled_models
    }
    FEATURE_BROWSER = [LAYOUT.features]
    EDITS = [path for path in [LAYOUT.edited_labels] if path.exists()]
    EDITED = [sha256(path) for path in EDITS]
    RATED = [SCALE.rated(kind).name for kind in RATED_KINDS]
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

    def activity(model):
        return [
            LAYOUT.activity(model) / file
            for file in ("text.safetensors", "chosen.json", "active.parquet")
        ]

    def read_for_activity(wildcards):
        """What the job reads. Circuits and observed features say which features to look at."""
        model = wildcards.model
        return [
            *weights(LABELLED[model]),
            LAYOUT.model(model) / "model.safetensors",
            LAYOUT.model(model) / "tokenizer.json",
            LAYOUT.documents,
            *(
                LAYOUT.circuit(case.name) / "paths.json"
                for case in SCALE.circuits.cases
                if case.model == model
            ),
            *(OBSERVED if model == SCALE.interpretability.rated_site.model else []),
        ]

    job(
        "gather_activity_{model}",
        "gather-activity {wildcards.model}",
        message="Looking at the features of circuits of {wildcards.model}",
        input=read_for_activity,
        output=activity("{model}"),
    )

    # Names are made from circuits by way of files that are not committed. In a fresh clone, where
    # times mean nothing, those would be made again because a circuit seems newer than the names.
    if not any(file.exists() for model in LABELLED for file in activity(model)):
        circuits = [LAYOUT.circuit(case.name) for case in SCALE.circuits.cases]
        date_after(LAYOUT.labels, [circuit / "paths.json" for circuit in circuits])

    job(
        "label_features",
        "label-features",
        message="Giving names to features",
        input=[
            *(file for model in LABELLED for file in activity(model)),
            *(LAYOUT.model(model) / "tokenizer.json" for model in LABELLED),
            *map(ancient, EDITS),
        ],
        output=LAYOUT.labels,
        contents=EDITED,
    )

    job(
        "feature_browser",
        "feature-browser",
        message="The feature browser",
        input=[
            *OBSERVED,
            *(file for model in LABELLED for file in activity(model)),
            *(file for own in LABELLED.values() for file in weights(own)),
            *(file for model in LABELLED for file in traced(model)),
            *(LAYOUT.model(model) / "tokenizer.json" for model in LABELLED),
            # It is committed, and in a fresh clone times mean nothing.
            ancient(LAYOUT.labels),
        ],
        output=directory(LAYOUT.features),
        contents=EDITED,
    )

    job(
        "table1",
        "table1",
        message="Table 1: what raters said",
        input=[
            *OBSERVED,
            RATED_MODEL / "tokenizer.json",
            # They are committed, and in a fresh clone times mean nothing.
            *(ancient(LAYOUT.dictionary(rated) / "cfg.json") for rated in RATED),
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
            message="Table 4: carrying out the case studies again",
            input=[*OBSERVED, *LOADED, *map(ancient, STUDY_FILES)],
            output=[
                *TABLE4,
                *(file for study in WORKED for file in CARRIED_OUT[study]),
            ],
            contents=[sha256(path) for path in STUDY_FILES],
        )
