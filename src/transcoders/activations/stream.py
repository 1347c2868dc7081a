"""The inputs and outputs of MLPs, made by the model whenever training asks for them.

Only the statistics are kept on disk, so a larger training set takes no more space. The rows of
every forward pass and the rounding are those of the cache, so training sees the same bytes. A
stream costs one pass of the model for every group and epoch, and one before them: dictionaries
start at the mean of their target over all tokens.
"""

from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path

import torch

from transcoders.activations.statistics import (
    DTYPES,
    Recorded,
    batches_of_rows,
    identity_of,
    rounded_activations,
)
from transcoders.config import Activations, Corpus, Site
from transcoders.corpus import Rows
from transcoders.models import LanguageModel, MLPActivations, mlp_activations


@contextmanager
def _float32_products() -> Iterator[None]:
    """Compute the model's products in float32, whatever precision training has set."""
    settings = torch.backends.cuda.matmul
    before = settings.fp32_precision
    settings.fp32_precision = "ieee"
    try:
        yield
    finally:
        settings.fp32_precision = before


class ActivationStream(Recorded):
    """A site's activations, on the device of the model that makes them."""

    read_ahead = False

    def __init__(
        self,
        model: LanguageModel,
        site: Site,
        rows: Rows,
        folder: Path,
        activations: Activations,
        corpus: Corpus,
        *,
        sources: dict[str, str],
        device: str = "cpu",
    ) -> None:
        """Open the stream of one site.

        Args:
            model: whose activations.
            site: whose activations.
            rows: the training rows.
            folder: with the statistics that :func:`~transcoders.activations.cache_activations`
                wrote.
            activations: dtype and sizes.
            corpus: says which positions train dictionaries.
            sources: SHA-256 of tokens and weights, to compare with those that were measured.
            device: where the model is.

        Raises:
            UserError: the statistics are missing, damaged, or of other rows, weights or settings.
        """
        super().__init__(folder, "stream")
        self.check(identity_of(activations, corpus, sources))
        self._model, self._layer, self._device = model, site.layer, device
        self._first = corpus.first_train_position
        self._dtype = DTYPES[activations.dtype]
        self._batches = batches_of_rows(rows.tokens, activations)
        sizes = (batch[:, self._first :].numel() for batch in self._batches)
        self._starts = list(accumulate(sizes, initial=0))
        self._last: tuple[int, MLPActivations] | None = None

    def read(self, start: int, stop: int) -> MLPActivations:
        """Tokens ``start`` to ``stop`` (exclusive): 16-bit tensors of shape (tokens, d_model)."""
        shape = (2, stop - start, self.d_model)
        wanted = MLPActivations(*torch.empty(shape, dtype=self._dtype, device=self._device))
        filled = 0
        number = bisect_right(self._starts, start) - 1
        while filled < stop - start:
            skipped = start + filled - self._starts[number]
            for whole, part in zip(wanted, self._batch(number), strict=True):
                new = part[skipped : skipped + stop - start - filled]
                whole[filled : filled + len(new)] = new
            filled += len(new)
            number += 1
        return wanted

    def _batch(self, number: int) -> MLPActivations:
        """One forward pass; the last is kept, since the next range begins in the middle of it."""
        if self._last is None or self._last[0] != number:
            self._last = None
            with _float32_products():
                passed = mlp_activations(
                    self._model, self._batches[number].to(self._device), [self._layer]
                )
            rounded = rounded_activations(passed[self._layer], self._first, self._dtype)
            self._last = (number, rounded)
        return self._last[1]
