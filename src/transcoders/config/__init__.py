"""A scale file, typed, checked and frozen.

A *scale* is one file in ``config/``: it names the models, the text, the sites, the dictionaries and
every number that can change a byte of a result. :func:`load_scale` is the only way in; what it
returns is valid, so no other module checks a config value again.
"""

from transcoders.config.kinds import KINDS, TRAITS, Kind, Traits
from transcoders.config.scale import Dictionary, Scale, load_scale
from transcoders.config.sections import (
    Activations,
    Corpus,
    DictionaryEntry,
    Evaluation,
    FilesSource,
    Group,
    HubDataset,
    HubSource,
    Model,
    Resources,
    Site,
    SyntheticCorpus,
    SyntheticModel,
    Training,
    WheelSource,
    WikipediaWheel,
)

__all__ = [
    "KINDS",
    "TRAITS",
    "Activations",
    "Corpus",
    "Dictionary",
    "DictionaryEntry",
    "Evaluation",
    "FilesSource",
    "Group",
    "HubDataset",
    "HubSource",
    "Kind",
    "Model",
    "Resources",
    "Scale",
    "Site",
    "SyntheticCorpus",
    "SyntheticModel",
    "Training",
    "Traits",
    "WheelSource",
    "WikipediaWheel",
    "load_scale",
]
