"""The inputs and outputs of MLPs over the training tokens: cached, streamed, or in memory."""

from transcoders.activations.cache import cache_activations as cache_activations
from transcoders.activations.in_memory import ActivationsInMemory as ActivationsInMemory
from transcoders.activations.reading import ActivationCache as ActivationCache
from transcoders.activations.reading import ActivationStream as ActivationStream
from transcoders.activations.reading import open_activations as open_activations
from transcoders.activations.reading import sources_of_activations as sources_of_activations
from transcoders.activations.statistics import DTYPES as DTYPES
from transcoders.activations.statistics import Statistics as Statistics
