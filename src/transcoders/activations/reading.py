"""Activations of a scale as training reads them: from the cache, or made by the model on the way.

Of a stream, only the statistics are kept on disk, so a larger training set takes no more space. The
rows of every forward pass and the rounding are those of the cache, so training sees the same bytes.
A stream costs one pass of the model for every group and epoch, and one before them: dictionaries
start at the mean of their target over all tokens. A pass serves all sites that are trained
together.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from transcoders.activations.statistics import DTYPES, Statistics, identity_of, rounded_activations
from transcoders.config import Activations, Corpus, Group, Scale, Site
from transcoders.corpus import Rows, load_rows
from transcoders.errors import UserError
from transcoders.files import read_json, read_tensors
from transcoders.layout import Layout
from transcoders.models import LanguageModel, MLPActivations, load_model, mlp_activations


class InChunks:
    """Activations of one site, or of several side by side, that come in chunks.

    Attributes:
        n_tokens: how many are read, from the first.
        records: what ``activations.json`` holds, of each site.
        statistics: over all training tokens, which may be more than are read.
    """

    def __init__(
        self, folders: Iterable[Path], expected: dict[str, Any], device: str | torch.device
    ) -> None:
        """Read the records and statistics of sites; subclasses say what the chunks are.

        Args:
            folders: of the sites.
            expected: what the records must say.
            device: where tokens are wanted.
        """
        self.records: list[dict[str, Any]] = []
        of_sites: list[Statistics] = []
        for folder in folders:
            record = read_json(folder / "activations.json")
            for key, value in expected.items():
                if record.get(key) != value:
                    raise UserError(
                        f"{folder / 'activations.json'}: expected {key} {value!r}, as the scale "
                        f"file says, found {record.get(key)!r}; {_remedy(folder)}"
                    )
            self.records.append(record)
            of_sites.append(Statistics(**_tensors(folder, record, "statistics.safetensors")))
        self.statistics = of_sites[0]
        if len(of_sites) > 1:
            self.statistics = Statistics(*map(torch.hstack, zip(*of_sites, strict=True)))
        self._device = device

    def _set_sizes(self, sizes: Iterable[int], n_tokens: int | None) -> None:
        """Note how many tokens each chunk has, and how many of them all are read (None: all)."""
        self._starts = list(accumulate(sizes, initial=0))
        self.n_tokens = self._starts[-1] if n_tokens is None else n_tokens

    def _chunk(self, number: int) -> MLPActivations:
        """Tensors of shape (tokens, sites · d_model)."""
        raise NotImplementedError

    def read(self, start: int, stop: int) -> MLPActivations:
        """Tokens ``start`` to ``stop`` (exclusive): 16-bit, of shape (tokens, sites · d_model)."""
        shape = (2, stop - start, len(self.statistics.mlp_in_mean))
        dtype = DTYPES[self.records[0]["dtype"]]
        wanted = torch.empty(shape, dtype=dtype, device=self._device)
        filled = 0
        number = bisect_right(self._starts, start) - 1
        while filled < stop - start:
            skipped = start + filled - self._starts[number]
            for whole, part in zip(wanted, self._chunk(number), strict=True):
                new = part[skipped : skipped + stop - start - filled]
                whole[filled : filled + len(new)] = new
            filled += len(new)
            number += 1
        return MLPActivations(*wanted)


class ActivationCache(InChunks):
    """A finished cache of one site, memory-mapped."""

    read_ahead = True

    def __init__(
        self, folder: Path, n_tokens: int | None = None, expected: dict[str, Any] | None = None
    ) -> None:
        """Open a cache and check every file's SHA-256.

        Args:
            folder: of the site.
            n_tokens: how many to read, from the first; None is all.
            expected: what its record must say.

        Raises:
            UserError: the cache is missing, unfinished, too small or of something else, or a file
                differs from what was written.
        """
        super().__init__([folder], expected or {}, "cpu")
        [record] = self.records
        names = sorted(name for name in record["files"] if name.startswith("shard-"))
        self._shards = [MLPActivations(**_tensors(folder, record, name)) for name in names]
        sizes = [len(shard.mlp_in) for shard in self._shards]
        if sum(sizes) < (n_tokens or 1):
            raise UserError(
                f"{folder}: expected a cache of {n_tokens or 'some'} tokens, as the scale file "
                f"says, found {sum(sizes)}; {_remedy(folder)}"
            )
        self._set_sizes(sizes, n_tokens)

    def _chunk(self, number: int) -> MLPActivations:
        return self._shards[number]


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
        expected: dict[str, Any] | None = None,
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
            expected: what else the records of the sites must say.

        Raises:
            UserError: the statistics are missing, damaged, or of other rows, weights or settings.
        """
        identity = identity_of(activations, corpus, sources) | (expected or {})
        super().__init__(folders.values(), identity, model.cfg.device)
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
        self._set_sizes((batch[:, self._first :].numel() for batch in self._batches), n_tokens)
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


def open_activations(
    scale: Scale, layout: Layout, group: Group, device: str
) -> ActivationCache | ActivationStream:
    """Open the activations that a group trains on, as the scale says how they reach it.

    Raises:
        UserError: they are missing, damaged, too few, or made from something else.
    """
    folders = {site: layout.activations(site.name) for site in group.sites}
    n_tokens = scale.contexts_of(group) * scale.corpus.trained_positions
    made_of = {"tokens": scale.corpus.train_tokens}
    if not scale.streams(group):
        return ActivationCache(folders[group.sites[0]], n_tokens, made_of)
    assert scale.activations is not None  # there is a group
    return ActivationStream(
        load_model(layout.model(group.model), device=device),
        folders,
        load_rows(layout.tokens(group.model), "train"),
        scale.activations,
        scale.corpus,
        sources=sources_of_activations(layout, group.model),
        n_tokens=n_tokens,
        expected=made_of,
    )


def sources_of_activations(layout: Layout, model: str) -> dict[str, str]:
    """SHA-256 of the tokens and weights from which a model's activations are made."""
    return {
        "tokens": read_json(layout.tokens(model) / "tokens.json")["train"]["sha256"],
        "model": read_json(layout.model(model) / "source.json")["files"]["model.safetensors"],
    }


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


def _tensors(folder: Path, record: dict[str, Any], name: str) -> dict[str, Tensor]:
    """The tensors of a file that a site's record lists, mapped into memory."""
    return read_tensors(folder / name, sha256=record["files"][name], remedy=_remedy(folder))


def _remedy(folder: Path) -> str:
    return f"delete {folder} and run again"
