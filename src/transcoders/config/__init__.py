"""A scale file, typed, checked and frozen.

A *scale* is one file in ``config/``: it names the models, the text, the sites, the dictionaries and
every number that can change a byte of a result. :func:`load_scale` is the only way in; what it
returns is valid, so no other module checks a config value again.
"""

from transcoders.config.groups import Group as Group
from transcoders.config.groups import GroupEntry as GroupEntry
from transcoders.config.kinds import KINDS as KINDS
from transcoders.config.kinds import RATED_KINDS as RATED_KINDS
from transcoders.config.kinds import TRAITS as TRAITS
from transcoders.config.kinds import Kind as Kind
from transcoders.config.kinds import Traits as Traits
from transcoders.config.loading import load_scale as load_scale
from transcoders.config.scale import Dictionary as Dictionary
from transcoders.config.scale import Scale as Scale
from transcoders.config.sections import Activations as Activations
from transcoders.config.sections import Corpus as Corpus
from transcoders.config.sections import DictionaryEntry as DictionaryEntry
from transcoders.config.sections import Evaluation as Evaluation
from transcoders.config.sections import ImportedTranscoder as ImportedTranscoder
from transcoders.config.sections import Model as Model
from transcoders.config.sections import Resources as Resources
from transcoders.config.sections import Site as Site
from transcoders.config.sections import Training as Training
from transcoders.config.sections import cache_bytes as cache_bytes
from transcoders.config.sources import HubDataset as HubDataset
from transcoders.config.sources import HubSource as HubSource
from transcoders.config.sources import ModelFolder as ModelFolder
from transcoders.config.sources import SyntheticCorpus as SyntheticCorpus
from transcoders.config.sources import SyntheticModel as SyntheticModel
from transcoders.config.sources import TextFiles as TextFiles
from transcoders.config.sources import TextSource as TextSource
from transcoders.config.sources import WheelSource as WheelSource
from transcoders.config.sources import WheelText as WheelText
from transcoders.config.studies import FeatureCheck as FeatureCheck
from transcoders.config.studies import GreaterThan as GreaterThan
from transcoders.config.studies import Interpretability as Interpretability
from transcoders.config.studies import PublishedGreaterThan as PublishedGreaterThan
