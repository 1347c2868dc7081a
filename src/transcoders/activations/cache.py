"""The inputs and outputs of MLPs, cached in shards.

One pass of the model serves every site of that model, and stops after the deepest of them. A
complete folder of a site holds:

    shard-00000.safetensors ...   tensors ``mlp_in`` and ``mlp_out`` (tokens, d_model), 16-bit
    statistics.safetensors        means and mean norms over all tokens, float32
    activations.json              sizes, dtype, hash of the tokens, SHA-256 of every file

Positions that do not train dictionaries are left out. While shards are written, ``begun.json`` says
what they are made of and which are complete. A pass that was killed goes on after the last shard
that all sites have. ``activations.json`` is written last: a folder without it is not complete. In
the mode ``stream`` there are no shards, and a pass that was killed starts over.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from transcoders.activations.statistics import (
    DTYPES,
    Recorded,
    Statistics,
    identity_of,
    rounded_activations,
)
from transcoders.checksums import sha256
from transcoders.config import Activations, Corpus, Site, cache_bytes
from transcoders.corpus import Rows
from transcoders.errors import UserError
from transcoders.files import (
    atomic_path,
    check_disk,
    made_path,
    read_json,
    read_tensors,
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
    """Run the model over all training rows. Write every site's statistics and, to cache, shards.

    Args:
        model: whose activations.
        rows: the training rows.
        folders: where each site's files go.
        activations: mode, dtype and sizes.
        corpus: says which positions train dictionaries.
        sources: SHA-256 of what the activations are made from (tokens, weights), by name. A cache
            that was begun with others starts over.
        device: where the model is.

    Raises:
        UserError: too little disk, or an activation does not fit the dtype.
    """
    n_rows, context_length = rows.tokens.shape
    tokens_per_row = context_length - corpus.first_train_position
    if activations.mode == "cache":
        present = sum(p.stat().st_size for f in folders.values() for p in f.glob("shard-*"))
        needed = cache_bytes(n_rows * tokens_per_row, model.cfg.d_model, len(folders)) - present
        check_disk(next(iter(folders.values())), needed, "the cached activations")
    identity = identity_of(activations, corpus, sources)
    shape = (min(activations.shard_contexts, n_rows) * tokens_per_row, model.cfg.d_model)
    writers = [
        _SiteWriter(site, folder, identity, shape, device) for site, folder in folders.items()
    ]
    done = min(writer.begin() for writer in writers)
    for writer in writers:
        for number in range(done):
            writer.recount(number, activations.batch_contexts * tokens_per_row)
    with progress_bar(
        n_rows * context_length,
        "caching activations" if activations.mode == "cache" else "measuring activations",
        initial=min(done * activations.shard_contexts, n_rows) * context_length,
    ) as bar:
        for number, shard in enumerate(rows.tokens.split(activations.shard_contexts)):
            if number < done:
                continue
            for batch in shard.split(activations.batch_contexts):
                _run(model, batch.to(device), writers)
                bar.update(batch.numel())
            for writer in writers:
                writer.write_shard(number)
    for writer in writers:
        writer.finish()
    for writer in writers:  # last, so that a pass killed before keeps all its shards
        writer.begun.unlink(missing_ok=True)


def _run(model: LanguageModel, batch: Tensor, writers: list["_SiteWriter"]) -> None:
    # A function of its own, so that the next pass finds this one's memory free: new pages cost
    # more than everything else that caching adds to the forward pass.
    passed = mlp_activations(model, batch, [writer.site.layer for writer in writers])
    for writer in writers:
        writer.add(passed.pop(writer.site.layer))


class _SiteWriter:
    """One site's folder while it is being written."""

    def __init__(
        self,
        site: Site,
        folder: Path,
        identity: dict[str, Any],
        shape: tuple[int, int],
        device: str,
    ) -> None:
        self.site, self.folder, self.begun = site, folder, folder / "begun.json"
        self._identity, self._device = identity, device
        self._dtype = DTYPES[identity["dtype"]]
        self._caches = identity["mode"] == "cache"
        # One shard, which is filled again and again.
        self._shard = torch.empty(2, *shape if self._caches else (0, 0), dtype=self._dtype)
        self._filled = 0
        self._written: dict[str, str] = {}
        self._n_tokens = 0
        self._sums: dict[str, Tensor] = {}

    def begin(self) -> int:
        """Count the complete shards of an unfinished cache like this, or clear the folder."""
        found = read_json(self.begun) if self._caches and self.begun.exists() else {}
        if found.get("identity") != self._identity:
            for stale in self.folder.glob("*"):
                stale.unlink()
            self._record()
            return 0
        for name, expected in found["shards"].items():
            path = self.folder / name
            if not path.exists() or sha256(path) != expected:
                break
            self._written[name] = expected
        return len(self._written)

    def recount(self, number: int, tokens_per_batch: int) -> None:
        """Count a shard that is there, in the batches in which it was made: the same sums."""
        shard = read_tensors(self._path(number))
        halves = (shard[name].split(tokens_per_batch) for name in MLPActivations._fields)
        for batch in zip(*halves, strict=True):
            self._count(MLPActivations(*(tensor.to(self._device) for tensor in batch)))

    def add(self, both: MLPActivations) -> None:
        """Count a pass and keep it for the shard. Shapes (row, position, d_model).

        Raises:
            UserError: a value does not fit the dtype.
        """
        rounded = rounded_activations(both, self._identity["first_position"], self._dtype)
        self._count(rounded)
        if self._caches:
            filled = self._filled + len(rounded.mlp_in)
            for kept, new in zip(self._shard, rounded, strict=True):
                kept[self._filled : filled] = new
            self._filled = filled

    def _count(self, rounded: MLPActivations) -> None:
        self._n_tokens += len(rounded.mlp_in)
        for name, tensor in rounded._asdict().items():
            norms = tensor.float().norm(dim=1).sum(dtype=torch.float64)
            if not norms.isfinite():
                raise UserError(
                    f"{self.site.name}: an activation is too large for its dtype; set "
                    "activations.dtype to bfloat16 in the scale file"
                )
            for key, value in (("mean", tensor.double().sum(dim=0)), ("norm", norms)):
                self._sums[f"{name}_{key}"] = self._sums.get(f"{name}_{key}", 0) + value

    def write_shard(self, number: int) -> None:
        """Write what was added since the shard before."""
        if not self._caches:
            return
        path = self._path(number)
        mlp_in, mlp_out = self._shard[:, : self._filled]
        with atomic_path(path) as temporary:
            save_tensors(temporary, {"mlp_in": mlp_in, "mlp_out": mlp_out})
        self._filled = 0
        self._written[path.name] = sha256(path)
        self._record()

    def finish(self) -> None:
        """Write the statistics and, last, the record that makes the folder complete."""
        means = {key: (total / self._n_tokens).float().cpu() for key, total in self._sums.items()}
        statistics = Statistics(**means)
        path = self.folder / "statistics.safetensors"
        with made_path(path) as temporary:
            save_tensors(temporary, statistics._asdict())
        record = {
            "site": self.site.name,
            "tokens": self._n_tokens,
            "d_model": len(statistics.mlp_in_mean),
            **self._identity,
            "files": {**self._written, path.name: sha256(path)},
        }
        write_json(self.folder / "activations.json", record)

    def _record(self) -> None:
        """Say what the cache is made of, and which of its shards are complete."""
        if self._caches:
            write_json(self.begun, {"identity": self._identity, "shards": self._written})

    def _path(self, number: int) -> Path:
        return self.folder / f"shard-{number:05d}.safetensors"


class ActivationCache(Recorded):
    """A finished cache of one site, memory-mapped."""

    read_ahead = True

    def __init__(self, folder: Path) -> None:
        """Open a cache and check every file's SHA-256.

        Raises:
            UserError: the cache is missing or unfinished, or a file differs from what was written.
        """
        super().__init__(folder, {"mode": "cache"}, "cpu")
        names = sorted(name for name in self.record["files"] if name.startswith("shard-"))
        self._shards = [MLPActivations(**self._read_file(name)) for name in names]
        self._set_sizes(len(shard.mlp_in) for shard in self._shards)

    def _chunk(self, number: int) -> MLPActivations:
        return self._shards[number]
