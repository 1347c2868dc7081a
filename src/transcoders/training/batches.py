"""The order in which training sees the activations."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import zip_longest
from typing import NamedTuple, Protocol

import numpy as np
import torch

from transcoders.config import Training
from transcoders.models import MLPActivations


class ActivationSource(Protocol):
    """A stream of a site's activations that can be read anywhere, such as an ActivationCache."""

    n_tokens: int
    read_ahead: bool
    """Whether reading waits for a disk and not for a processor. Then a thread reads ahead."""

    def read(self, start: int, stop: int) -> MLPActivations:
        """Tokens ``start`` to ``stop`` (exclusive)."""
        ...


class _Buffer(NamedTuple):
    """Tokens that are shuffled together."""

    epoch: int
    number: int
    start: int
    stop: int


def steps_per_epoch(n_tokens: int, training: Training) -> int:
    """Full batches in one pass. An incomplete batch at the end is left out."""
    return n_tokens // training.batch_tokens


def batches(
    source: ActivationSource, training: Training, *, seed: int, first_step: int = 0
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
    buffers = [
        _Buffer(epoch, number, start, min(start + length, usable))
        for epoch in range(training.epochs)
        for number, start in enumerate(range(0, usable, length))
    ]
    skipped = first_step
    while buffers and skipped >= (steps := (buffers[0].stop - buffers[0].start) // size):
        skipped -= steps
        del buffers[0]
    with ThreadPoolExecutor(max_workers=1) as reader:

        def ask(buffer: _Buffer) -> Callable[[], MLPActivations]:
            if source.read_ahead:
                return reader.submit(source.read, buffer.start, buffer.stop).result
            return partial(source.read, buffer.start, buffer.stop)

        coming = [ask(buffer) for buffer in buffers[:1]]
        for here, following in zip_longest(buffers, buffers[1:]):
            tokens = coming.pop()()
            if following is not None:
                coming.append(ask(following))
            order = np.random.default_rng([seed, here.epoch, here.number]).permutation(
                here.stop - here.start
            )
            for chosen in torch.from_numpy(order).split(size)[skipped:]:
                yield MLPActivations(tokens.mlp_in[chosen], tokens.mlp_out[chosen])
            skipped = 0
            del tokens  # before the next buffer is made
