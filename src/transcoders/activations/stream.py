"""The inputs and outputs of MLPs, made by the model whenever training asks for them.

Nothing but the statistics is kept on disk, so the size of a training set costs no space. The rows
of every forward pass and the rounding are those of the cache, and so are the bytes that training
sees. It costs a pass of the model for every group that trains and every epoch, and one before
them: dictionaries start at the mean of their target, which is one over all tokens.
"""

from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from transcoders.activations.batches import (
    DTYPES,
    batches_of_rows,
    check_range,
    identity_of,
    rounded_activations,
)
from transcoders.activations.statistics import (
    Totals,
    load_record,
    load_statistics,
    save_statistics,
)
from transcoders.config import Activations, Corpus, Site
from transcoders.corpus import Rows
from transcoders.errors import UserError
from transcoders.models import LanguageModel, MLPActivations, mlp_activations
from transcoders.progress import progress_bar


def measure_activations(
    model: LanguageModel,
    rows: Rows,
    folders: dict[Site, Path],
    activations: Activations,
    corpus: Corpus,
    *,
    sources: dict[str, str],
    device: str = "cpu",
) -> None:
    """Run the model over all training rows and write every site's statistics.

    Args and errors are those of :func:`~transcoders.activations.cache_activations`.
    """
    identity = identity_of(activations, corpus, sources)
    totals = {site: Totals(site) for site in folders}
    with progress_bar(rows.tokens.numel(), "measuring activations") as bar:
        for batch in batches_of_rows(rows.tokens, activations):
            layers = [site.layer for site in folders]
            passed = mlp_activations(model, batch.to(device), layers)
            for site, total in totals.items():
                total.add(
                    rounded_activations(
                        passed[site.layer], corpus.first_train_position, DTYPES[activations.dtype]
                    )
                )
            bar.update(batch.numel())
    for site, folder in folders.items():
        for cached in folder.glob("shard-*"):  # of an earlier run that cached
            cached.unlink()
        save_statistics(folder, totals[site], identity, {})


@contextmanager
def _float32_products() -> Iterator[None]:
    """Whatever precision training asks for is its own: the model's products stay in float32."""
    settings = torch.backends.cuda.matmul
    before = settings.fp32_precision
    settings.fp32_precision = "ieee"
    try:
        yield
    finally:
        settings.fp32_precision = before


class ActivationStream:
    """A site's activations, on the device of the model that makes them.

    Attributes:
        n_tokens: training tokens.
        d_model: width of both vectors.
        statistics: over all tokens.
        record: what ``activations.json`` holds.
    """

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
            folder: with the statistics that :func:`measure_activations` wrote.
            activations: dtype and sizes.
            corpus: says which positions train dictionaries.
            sources: SHA-256 of tokens and weights, to compare with those that were measured.
            device: where the model is.

        Raises:
            UserError: the statistics are missing, damaged, or of other rows, weights or settings.
        """
        self.record = load_record(folder, "stream")
        expected = identity_of(activations, corpus, sources)
        differing = [key for key, value in expected.items() if self.record.get(key) != value]
        if differing:
            raise UserError(
                f"{folder / 'activations.json'}: expected {differing[0]} "
                f"{expected[differing[0]]!r}, found {self.record.get(differing[0])!r}; delete "
                f"{folder} and run again"
            )
        self.n_tokens: int = self.record["tokens"]
        self.d_model: int = self.record["d_model"]
        self.statistics = load_statistics(folder)
        self._model, self._layer, self._device = model, site.layer, device
        self._first = corpus.first_train_position
        self._dtype = DTYPES[activations.dtype]
        self._batches = batches_of_rows(rows.tokens, activations)
        self._starts = [0]
        for batch in self._batches:
            self._starts.append(self._starts[-1] + batch[:, self._first :].numel())
        self._last: tuple[int, MLPActivations] | None = None

    def read(self, start: int, stop: int) -> MLPActivations:
        """Tokens ``start`` to ``stop`` (exclusive): 16-bit tensors of shape (tokens, d_model).

        Raises:
            ValueError: the range is empty or reaches beyond the training tokens.
        """
        check_range(start, stop, self.n_tokens)
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
