"""The inputs and outputs of MLPs, made by the model whenever training asks for them.

Only the statistics are kept on disk, so a larger training set takes no more space. The rows of
every forward pass and the rounding are those of the cache, so training sees the same bytes. A
stream costs one pass of the model for every group and epoch, and one before them: dictionaries
start at the mean of their target over all tokens.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from transcoders.activations.statistics import DTYPES, Recorded, identity_of, rounded_activations
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
        super().__init__(folder, identity_of(activations, corpus, sources), device)
        self._model, self._layer = model, site.layer
        self._first = corpus.first_train_position
        self._dtype = DTYPES[activations.dtype]
        # The rows of a pass are those of the cache: the last digits of a row depend on the rows
        # that pass with it.
        self._batches = [
            batch
            for shard in rows.tokens.split(activations.shard_contexts)
            for batch in shard.split(activations.batch_contexts)
        ]
        self._set_sizes(batch[:, self._first :].numel() for batch in self._batches)
        self._last: tuple[int, MLPActivations] | None = None

    def _chunk(self, number: int) -> MLPActivations:
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
