"""The inputs and outputs of MLPs, made by the model whenever training asks for them.

Only the statistics are kept on disk, so a larger training set takes no more space. The rows of
every forward pass and the rounding are those of the cache, so training sees the same bytes. A
stream costs one pass of the model for every group and epoch, and one before them: dictionaries
start at the mean of their target over all tokens. A pass serves all sites that are trained
together.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from transcoders.activations.statistics import (
    DTYPES,
    InChunks,
    Recorded,
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


class ActivationStream(InChunks):
    """The activations of some sites of a model, on the device of the model that makes them."""

    read_ahead = False

    def __init__(
        self,
        model: LanguageModel,
        folders: dict[Site, Path],
        rows: Rows,
        activations: Activations,
        corpus: Corpus,
        *,
        sources: dict[str, str],
        n_tokens: int | None = None,
        device: str = "cpu",
    ) -> None:
        """Open the stream.

        Args:
            model: whose activations.
            folders: of each site, with the statistics that
                :func:`~transcoders.activations.cache_activations` wrote.
            rows: the training rows.
            activations: dtype and sizes.
            corpus: says which positions train dictionaries.
            sources: SHA-256 of tokens and weights, to compare with those that were measured.
            n_tokens: how many to read, from the first; None is all.
            device: where the model is.

        Raises:
            UserError: the statistics are missing, damaged, or of other rows, weights or settings.
        """
        self._model, self._layers = model, [site.layer for site in folders]
        self._first = corpus.first_train_position
        self._dtype = DTYPES[activations.dtype]
        # The rows of a pass are those of the cache, even if not all of them are wanted: the last
        # digits of a row depend on the rows that pass with it.
        self._batches = [
            batch
            for shard in rows.tokens.split(activations.shard_contexts)
            for batch in shard.split(activations.batch_contexts)
        ]
        identity = identity_of(activations, corpus, sources)
        super().__init__(
            [Recorded(folder, identity) for folder in folders.values()],
            (batch[:, self._first :].numel() for batch in self._batches),
            n_tokens,
            device,
        )
        self._last: tuple[int, MLPActivations] | None = None

    def _chunk(self, number: int) -> MLPActivations:
        """One forward pass; the last is kept, since the next range begins in the middle of it."""
        if self._last is None or self._last[0] != number:
            self._last = None
            tokens = self._batches[number].to(self._device)
            with _float32_products():
                passed = mlp_activations(self._model, tokens, self._layers)
            rounded = [
                rounded_activations(passed.pop(layer), self._first, self._dtype)
                for layer in self._layers
            ]
            side_by_side = (torch.cat(tensors, dim=1) for tensors in zip(*rounded, strict=True))
            self._last = (number, MLPActivations(*side_by_side))
        return self._last[1]
