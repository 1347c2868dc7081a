"""A scale file, typed, checked and frozen.

A *scale* is one file in ``config/``: it names the models, the text, the sites, the dictionaries and
every number that can change a byte of a result. :func:`load_scale` is the only way in; what it
returns is valid, so no other module checks a config value again.
"""

from transcoders.config.groups import Group, GroupEntry
from transcoders.config.kinds import KINDS, RATED_KINDS, TRAITS, Kind, Traits
from transcoders.config.loading import load_scale
from transcoders.config.scale import Dictionary, Scale
from transcoders.config.sections import (
    Activations,
    Corpus,
    DictionaryEntry,
    Evaluation,
    ImportedTranscoder,
    Model,
    Resources,
    Site,
    Training,
    cache_bytes,
)
from transcoders.config.sources import (
    HubDataset,
    HubSource,
    ModelFolder,
    SyntheticCorpus,
    SyntheticModel,
    TextFiles,
    TextSource,
    WheelSource,
    WheelText,
)
from transcoders.config.studies import (
    FeatureCheck,
    GreaterThan,
    Interpretability,
    PublishedGreaterThan,
)

__all__ = [
    "KINDS",
    "RATED_KINDS",
    "TRAITS",
    "Activations",
    "Corpus",
    "Dictionary",
    "DictionaryEntry",
    "Evaluation",
    "FeatureCheck",
    "GreaterThan",
    "Group",
    "GroupEntry",
    "HubDataset",
    "HubSource",
    "ImportedTranscoder",
    "Interpretability",
    "Kind",
    "Model",
    "ModelFolder",
    "PublishedGreaterThan",
    "Resources",
    "Scale",
    "Site",
    "SyntheticCorpus",
    "SyntheticModel",
    "TextFiles",
    "TextSource",
    "Training",
    "Traits",
    "WheelSource",
    "WheelText",
    "cache_bytes",
    "load_scale",
]
