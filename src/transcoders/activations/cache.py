"""The inputs and outputs of MLPs, cached in shards.

One pass of the model serves every site of that model, and stops after the deepest of them. A
complete folder of a site holds:

    shard-00000.safetensors ...   tensors ``mlp_in`` and ``mlp_out`` (tokens, d_model), 16-bit
    statistics.safetensors        means and mean norms over all tokens, float32
    activations.json              sizes, dtype, hash of the tokens, SHA-256 of every file; what
                                  the MLP reads, if one norm serves attention and MLP

A site has shards of as many rows as its groups read from them, to the end of a shard, and perhaps
none. The means are over all rows. Positions that do not train dictionaries are left out. While a
folder is written, ``begun.json`` says what it is made of, which shards are complete, and the sums
so far. A pass that was killed goes on after the last rows that all sites have. ``activations.json``
is written last: a folder without it is not complete.
"""

from math import ceil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from transcoders.activations.statistics import (
    DTYPES,
    InChunks,
    Recorded,
    Statistics,
    check_varies,
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
    save_tensors,
    write_json,
)
from transcoders.models import LanguageModel, MLPActivations, mlp_activations, mlp_input
from transcoders.progress import progress_bar


def cache_activations(
    model: LanguageModel,
    rows: Rows,
    folders: dict[Site, Path],
    activations: Activations,
    corpus: Corpus,
    *,
    sources: dict[str, str],
    cached_rows: dict[Site, int] | None = None,
    device: str = "cpu",
) -> None:
    """Run the model over all training rows. Write every site's statistics and its shards.

    Args:
        model: whose activations.
        rows: the training rows.
        folders: where each site's files go.
        activations: dtype and sizes.
        corpus: says which positions train dictionaries.
        sources: SHA-256 of what the activations are made from (tokens, weights), by name. A cache
            that was begun with others starts over.
        cached_rows: how many rows of each site the shards must hold; None is all of every site.
        device: where the model is.

    Raises:
        UserError: too little disk, or an activation does not fit the dtype.
    """
    n_rows, context_length = rows.tokens.shape
    tokens_per_row = context_length - corpus.first_train_position
    shards = rows.tokens.split(activations.shard_contexts)
    identity = identity_of(activations, corpus, sources)
    shape = (len(shards[0]) * tokens_per_row, model.cfg.d_model)
    writers = []
    for site, folder in folders.items():
        wanted = n_rows if cached_rows is None else min(cached_rows[site], n_rows)
        n_shards = ceil(wanted / activations.shard_contexts)
        reads = mlp_input(model, site.layer)
        writers.append(_SiteWriter(site, folder, reads, identity, n_shards, shape, device))
    in_shards = (len(shard) for writer in writers for shard in shards[: writer.n_shards])
    present = sum(p.stat().st_size for f in folders.values() for p in f.glob("shard-*"))
    needed = cache_bytes(sum(in_shards) * tokens_per_row, model.cfg.d_model) - present
    check_disk(next(iter(folders.values())), needed, "the cached activations")
    for writer in writers:
        writer.begin()
    done = min(writer.done for writer in writers)
    with progress_bar(
        n_rows * context_length,
        "running the model for activations",
        initial=min(done * activations.shard_contexts, n_rows) * context_length,
    ) as bar:
        for number, shard in enumerate(shards[done:], start=done):
            behind = [writer for writer in writers if writer.done == number]
            for batch in shard.split(activations.batch_contexts):
                _run(model, batch.to(device), behind)
                bar.update(batch.numel())
            for writer in behind:
                writer.end_shard()
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
    """One site's folder while it is being written.

    Attributes:
        n_shards: how many shards are written; further rows are only counted.
        done: shards' worth of rows that are counted and, among the first, written.
    """

    def __init__(
        self,
        site: Site,
        folder: Path,
        reads: str,
        identity: dict[str, Any],
        n_shards: int,
        shape: tuple[int, int],
        device: str,
    ) -> None:
        self.site, self.folder, self.begun = site, folder, folder / "begun.json"
        self._reads, self._identity, self._device = reads, identity, device
        self._dtype = DTYPES[identity["dtype"]]
        self.n_shards, self.done = n_shards, 0
        # One shard, which is filled again and again.
        self._shard = torch.empty(2, *shape if n_shards else (0, 0), dtype=self._dtype)
        self._filled = 0
        self._written: dict[str, str] = {}
        self._n_tokens = 0
        self._sums: dict[str, Tensor] = {}

    def begin(self) -> None:
        """Go on after the complete shards of an unfinished cache like this, or clear the folder."""
        found = read_json(self.begun) if self.begun.exists() else {}
        paths = {self.folder / name: expected for name, expected in found.get("shards", {}).items()}
        if (found.get("identity"), found.get("n_shards")) != (self._identity, self.n_shards) or any(
            not path.exists() or sha256(path) != expected for path, expected in paths.items()
        ):
            for stale in self.folder.glob("*"):
                stale.unlink()
            return
        self.done, self._written, self._n_tokens = found["done"], found["shards"], found["tokens"]
        self._sums = {
            key: torch.tensor(value, dtype=torch.float64, device=self._device)
            for key, value in found["sums"].items()
        }

    def add(self, both: MLPActivations) -> None:
        """Count a pass and keep it for the shard. Shapes (row, position, d_model).

        Raises:
            UserError: a value does not fit the dtype.
        """
        rounded = rounded_activations(both, self._identity["first_position"], self._dtype)
        self._count(rounded)
        if self.done < self.n_shards:
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

    def end_shard(self) -> None:
        """Write what was added since the shard before, and the sums so far."""
        if self.done < self.n_shards:
            path = self.folder / f"shard-{self.done:05d}.safetensors"
            mlp_in, mlp_out = self._shard[:, : self._filled]
            with atomic_path(path) as temporary:
                save_tensors(temporary, {"mlp_in": mlp_in, "mlp_out": mlp_out})
            self._filled = 0
            self._written[path.name] = sha256(path)
        self.done += 1
        record = {
            "identity": self._identity,
            "n_shards": self.n_shards,
            "done": self.done,
            "shards": self._written,
            "tokens": self._n_tokens,
            "sums": {key: total.tolist() for key, total in self._sums.items()},
        }
        write_json(self.begun, record)

    def finish(self) -> None:
        """Write the statistics and, last, the record that makes the folder complete."""
        means = {key: (total / self._n_tokens).float().cpu() for key, total in self._sums.items()}
        statistics = Statistics(**means)
        check_varies(statistics, self.site.name, self._identity["dtype"])
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
        if ".ln2." not in self._reads:
            record["mlp_input"] = self._reads
        write_json(self.folder / "activations.json", record)


class ActivationCache(InChunks):
    """A finished cache of one site, memory-mapped."""

    read_ahead = True

    def __init__(self, folder: Path, n_tokens: int | None = None) -> None:
        """Open a cache and check every file's SHA-256.

        Args:
            folder: of the site.
            n_tokens: how many to read, from the first; None is all.

        Raises:
            UserError: the cache is missing, unfinished or too small, or a file differs from what
                was written.
        """
        site = Recorded(folder, {})
        names = sorted(name for name in site.record["files"] if name.startswith("shard-"))
        self._shards = [MLPActivations(**site.read_file(name)) for name in names]
        sizes = [len(shard.mlp_in) for shard in self._shards]
        if sum(sizes) < (n_tokens or 1):
            raise UserError(
                f"{folder}: expected a cache of {n_tokens or 'some'} tokens, as the scale file "
                f"says, found {sum(sizes)}; {site.remedy}"
            )
        super().__init__([site], sizes, n_tokens, "cpu")

    def _chunk(self, number: int) -> MLPActivations:
        return self._shards[number]
