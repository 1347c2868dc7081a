"""The inputs and outputs of MLPs over the training tokens: cached, streamed, or in memory."""

from transcoders.activations.cache import ActivationCache, cache_activations
from transcoders.activations.in_memory import ActivationsInMemory
from transcoders.activations.statistics import DTYPES, Statistics
from transcoders.activations.stream import ActivationStream

__all__ = [
    "DTYPES",
    "ActivationCache",
    "ActivationStream",
    "ActivationsInMemory",
    "Statistics",
    "cache_activations",
]
