"""The inputs and outputs of MLPs, cached in shards.

One pass of the model serves every site of that model, and stops after the deepest of them. A site's
folder holds, once complete:

    shard-00000.safetensors ...   tensors ``mlp_in`` and ``mlp_out`` (tokens, d_model), 16-bit
    statistics.safetensors        means and mean norms over all tokens, float32
    activations.json              sizes, dtype, hash of the tokens, SHA-256 of every file

Positions that do not train dictionaries are left out. While shards are written, ``begun.json`` says
what they are made of and which are whole: a pass that was killed goes on after the last that all
sites have. ``activations.json`` comes last, so a folder without it is not complete.
"""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Shaped
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from transcoders.activations.batches import (
    DTYPES,
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
from transcoders.checksums import sha256
from transcoders.config import Activations, Corpus, Site, cache_bytes
from transcoders.corpus import Rows
from transcoders.errors import UserError
from transcoders.files import (
    atomic_path,
    check_disk,
    read_json,
    save_tensors,
    write_json,
)
from transcoders.models import LanguageModel, MLPActivations, mlp_activations
from transcoders.progress import progress_bar


def cache_activations(
    model: LanguageModel,
    rows: Rows,
    folders: dict[Site, Path],
    activations: Activations,
    corpus: Corpus,
    *,
    sources: dict[str, str],
    device: str = "cpu",
) -> None:
    """Run the model over all training rows and write every site's cache.

    Args:
        model: whose activations.
        rows: the training rows.
        folders: where each site's cache goes.
        activations: dtype and sizes.
        corpus: says which positions train dictionaries.
        sources: SHA-256 of what the activations are made from (tokens, weights), by name: recorded,
            so that a cache begun with others is noticed and started over.
        device: where the model is.

    Raises:
        UserError: too little disk, or an activation does not fit the dtype.
    """
    first = corpus.first_train_position
    n_rows, context_length = rows.tokens.shape
    tokens_per_row = context_length - first
    d_model = model.cfg.d_model
    dtype = DTYPES[activations.dtype]
    present = sum(p.stat().st_size for f in folders.values() for p in f.glob("shard-*"))
    check_disk(
        next(iter(folders.values())),
        cache_bytes(n_rows * tokens_per_row, d_model, len(folders)) - present,
        "the cached activations",
    )
    identity = identity_of(activations, corpus, sources)
    shape = (min(activations.shard_contexts, n_rows) * tokens_per_row, d_model)
    writers = [
        _SiteWriter(site, folder, identity, first, torch.empty(2, *shape, dtype=dtype), device)
        for site, folder in folders.items()
    ]
    shards = list(rows.tokens.split(activations.shard_contexts))
    done = min(writer.complete_shards(len(shards)) for writer in writers)
    for writer in writers:
        for number in range(done):
            writer.resume(number, activations.batch_contexts * tokens_per_row)
    rows_done = min(done * activations.shard_contexts, n_rows)
    with progress_bar(
        n_rows * context_length, "caching activations", initial=rows_done * context_length
    ) as bar:
        for number in range(done, len(shards)):
            for batch in shards[number].split(activations.batch_contexts):
                _run(model, batch.to(device), writers)
                bar.update(batch.numel())
            for writer in writers:
                writer.write_shard(number)
    for writer in writers:
        writer.finish()
    for writer in writers:  # last, so that a pass killed before keeps all its shards
        (writer.folder / "begun.json").unlink()


def _run(model: LanguageModel, batch: Tensor, writers: list["_SiteWriter"]) -> None:
    # A function of its own, so that the next pass finds this one's memory free: new pages cost
    # more than everything else that caching adds to the forward pass.
    passed = mlp_activations(model, batch, [writer.site.layer for writer in writers])
    for writer in writers:
        writer.add(passed.pop(writer.site.layer))


class _SiteWriter:
    """One site's cache while it is being written."""

    def __init__(
        self,
        site: Site,
        folder: Path,
        identity: dict[str, Any],
        first_position: int,
        shard: Shaped[Tensor, "2 tokens d_model"],
        device: str,
    ) -> None:
        self.site, self.folder = site, folder
        self._identity, self._first = identity, first_position
        self._shard = MLPActivations(*shard)  # filled again and again
        self._filled = 0
        self._written: dict[str, str] = {}
        self._device = device
        self._totals = Totals(site)

    def complete_shards(self, n_shards: int) -> int:
        """How many shards at the head of an unfinished cache of the same identity can be kept."""
        begun = self.folder / "begun.json"
        found = read_json(begun) if begun.exists() else {}
        if found.get("identity") != self._identity:
            for stale in self.folder.glob("*"):
                stale.unlink()
            self._record()
            return 0
        whole = found["shards"]
        for number in range(n_shards):
            path = self._path(number)
            if not path.exists() or sha256(path) != whole.get(path.name):
                return number
            self._written[path.name] = whole[path.name]
        return n_shards

    def resume(self, number: int, tokens_per_batch: int) -> None:
        """Count a shard that is there, in the batches in which it was made: the same sums."""
        shard = load_file(self._path(number))
        for mlp_in, mlp_out in zip(
            *(shard[name].split(tokens_per_batch) for name in MLPActivations._fields), strict=True
        ):
            self._totals.add(MLPActivations(mlp_in.to(self._device), mlp_out.to(self._device)))

    def add(self, both: MLPActivations) -> None:
        """Drop the untrained positions, round, and keep for the shard. Shapes (row, position, d).

        Raises:
            UserError: a value does not fit the dtype.
        """
        rounded = rounded_activations(both, self._first, self._shard.mlp_in.dtype)
        self._totals.add(rounded)
        filled = self._filled + len(rounded.mlp_in)
        for kept, new in zip(self._part(self._filled, filled), rounded, strict=True):
            kept.copy_(new)
        self._filled = filled

    def write_shard(self, number: int) -> None:
        """Write what was added since the shard before."""
        with atomic_path(self._path(number)) as temporary:
            save_tensors(temporary, self._part(0, self._filled)._asdict())
        self._filled = 0
        self._written[self._path(number).name] = sha256(self._path(number))
        self._record()

    def finish(self) -> None:
        """Write the statistics and, last, the record that makes the folder a cache."""
        save_statistics(self.folder, self._totals, self._identity, self._written)

    def _record(self) -> None:
        """Say what the cache is made of, and which of its shards are whole."""
        record = {"identity": self._identity, "shards": self._written}
        write_json(self.folder / "begun.json", record)

    def _path(self, number: int) -> Path:
        return self.folder / f"shard-{number:05d}.safetensors"

    def _part(self, start: int, stop: int) -> MLPActivations:
        return MLPActivations(*(tensor[start:stop] for tensor in self._shard))


class ActivationCache:
    """A finished cache of one site, memory-mapped.

    Attributes:
        n_tokens: tokens in the cache.
        d_model: width of both vectors.
        statistics: over all tokens.
        record: what ``activations.json`` holds.
    """

    read_ahead = True

    def __init__(self, folder: Path, *, verify: bool = True) -> None:
        """Open a cache and check every file's SHA-256.

        Raises:
            UserError: the cache is missing or unfinished, or a file differs from what was written.
        """
        self.record = load_record(folder, "cache", verify=verify)
        self.n_tokens: int = self.record["tokens"]
        self.d_model: int = self.record["d_model"]
        self.statistics = load_statistics(folder)
        try:
            names = [name for name in self.record["files"] if name.startswith("shard-")]
            shards = [load_file(folder / name) for name in sorted(names)]
        except (SafetensorError, TypeError) as error:
            raise UserError(f"{folder}: unreadable ({error}); delete it and run again") from None
        self._shards = [MLPActivations(**shard) for shard in shards]

    def read(self, start: int, stop: int) -> MLPActivations:
        """Tokens ``start`` to ``stop`` (exclusive): 16-bit tensors of shape (tokens, d_model).

        Raises:
            ValueError: the range is empty or reaches beyond the cache.
        """
        check_range(start, stop, self.n_tokens)
        parts: list[MLPActivations] = []
        for shard in self._shards:
            n_here = len(shard.mlp_in)
            if start < n_here and stop > 0:
                here = slice(max(start, 0), min(stop, n_here))
                parts.append(MLPActivations(shard.mlp_in[here], shard.mlp_out[here]))
            start, stop = start - n_here, stop - n_here
        mlp_in, mlp_out = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        return MLPActivations(mlp_in, mlp_out)
