"""The order in which training sees the activations."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import zip_longest
from typing import Protocol

import numpy as np
import torch

from transcoders.activations import Statistics
from transcoders.config import Training
from transcoders.models import MLPActivations


class SiteActivations(Protocol):
    """Activations that can be read anywhere: of one site, or of several side by side."""

    n_tokens: int
    statistics: Statistics
    read_ahead: bool
    """Whether reading waits for a disk and not for a processor. Then a thread reads ahead."""

    def read(self, start: int, stop: int) -> MLPActivations:
        """Tokens ``start`` to ``stop`` (exclusive), of shape (tokens, sites · d_model)."""
        ...


def steps_per_epoch(n_tokens: int, training: Training) -> int:
    """Full batches in one pass. An incomplete batch at the end is left out."""
    return n_tokens // training.batch_tokens


def batches(
    source: SiteActivations, training: Training, *, seed: int, first_step: int = 0
) -> Iterator[MLPActivations]:
    """All batches of all epochs from ``first_step`` on, in the source's 16-bit dtype.

    The stream is cut into buffers of about ``buffer_tokens``, each a whole number of batches. Each
    buffer is shuffled by itself, with a generator that depends on seed, epoch and buffer only. So a
    batch is a function of seed and step, whatever came before. If the source is read ahead, a
    thread reads the next buffer while one is used, and two are in memory at a time.
    """
    size = training.batch_tokens
    length = max(training.buffer_tokens // size, 1) * size
    usable = steps_per_epoch(source.n_tokens, training) * size
    done = first_step * size
    # Each buffer has the epoch, its number in the epoch, and its first and last token.
    buffers = [
        (epoch, number, start, min(start + length, usable))
        for epoch in range(training.epochs)
        for number, start in enumerate(range(0, usable, length))
        if epoch * usable + min(start + length, usable) > done
    ]
    with ThreadPoolExecutor(max_workers=1) as reader:
        ahead: Future[MLPActivations] | None = None
        for (epoch, number, start, stop), following in zip_longest(buffers, buffers[1:]):
            tokens = ahead.result() if ahead else source.read(start, stop)
            ahead = None
            if source.read_ahead and following is not None:
                ahead = reader.submit(source.read, *following[2:])
            order = np.random.default_rng([seed, epoch, number]).permutation(stop - start)
            skipped = max(done - epoch * usable - start, 0)
            for chosen in torch.from_numpy(order).split(size)[skipped // size :]:
                yield MLPActivations(tokens.mlp_in[chosen], tokens.mlp_out[chosen])
            del tokens  # before the next buffer is made
