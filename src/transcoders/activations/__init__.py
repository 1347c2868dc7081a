"""The inputs and outputs of MLPs over the training tokens: cached, or streamed from the model."""

from transcoders.activations.cache import ActivationCache, cache_activations
from transcoders.activations.passes import DTYPES
from transcoders.activations.statistics import Statistics, load_statistics
from transcoders.activations.stream import ActivationStream, measure_activations

__all__ = [
    "DTYPES",
    "ActivationCache",
    "ActivationStream",
    "Statistics",
    "cache_activations",
    "load_statistics",
    "measure_activations",
]
