"""The order in which training sees the activations."""

from collections.abc import Iterator

import numpy as np
import torch

from transcoders.activations import ActivationCache
from transcoders.config import Training
from transcoders.models import MLPActivations


def steps_per_epoch(n_tokens: int, training: Training) -> int:
    """Full batches in one pass; the last, incomplete one is left out."""
    return n_tokens // training.batch_tokens


def batches(cache: ActivationCache, training: Training, *, seed: int) -> Iterator[MLPActivations]:
    """All batches of all epochs, in the cache's 16-bit dtype.

    The stream is cut into buffers of about ``buffer_tokens``, a whole number of batches each; each
    is shuffled by itself, with a generator that is a function of seed, epoch and buffer only.
    """
    size = training.batch_tokens
    buffer = max(training.buffer_tokens // size, 1) * size
    usable = steps_per_epoch(cache.n_tokens, training) * size
    for epoch in range(training.epochs):
        for number, start in enumerate(range(0, usable, buffer)):
            tokens = cache.read(start, min(start + buffer, usable))
            order = np.random.default_rng([seed, epoch, number]).permutation(len(tokens.mlp_in))
            for chosen in torch.from_numpy(order).split(size):
                yield MLPActivations(tokens.mlp_in[chosen], tokens.mlp_out[chosen])
