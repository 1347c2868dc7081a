"""The inputs and outputs of MLPs, cached in shards.

One pass of the model serves every site of that model, and stops after the deepest of them. A
complete folder of a site holds:

    shard-00000.safetensors ...   tensors ``mlp_in`` and ``mlp_out`` (tokens, d_model), 16-bit
    statistics.safetensors        means and mean norms over all tokens, float32
    activations.json              sizes, dtype, hash of the tokens, SHA-256 of every file; what
                                  the MLP reads, if one norm serves attention and MLP

The shards of a site hold as many rows as its groups read, rounded up to whole shards. There may be
none. The means are over all rows. Positions that do not train dictionaries are left out. During a
pass, ``begun.json`` in the first site's folder says what it makes, which shards are complete, and
the sums so far. A pass that was killed goes on from there. ``activations.json`` is written last: a
folder without it is not complete.
"""

from math import ceil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from transcoders.activations.statistics import (
    DTYPES,
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

    Raises:
        UserError: too little disk, or an activation does not fit the dtype.
    """
    n_rows, context_length = rows.tokens.shape
    tokens_per_row = context_length - corpus.first_train_position
    shards = rows.tokens.split(activations.shard_contexts)
    shape = (len(shards[0]) * tokens_per_row, model.cfg.d_model)
    identity = identity_of(activations, corpus, sources)
    sites = []
    for site, folder in folders.items():
        wanted = n_rows if cached_rows is None else min(cached_rows[site], n_rows)
        n_shards = ceil(wanted / activations.shard_contexts)
        sites.append(_Site(site, folder, n_shards, shape, activations.dtype))
    in_shards = sum(len(shard) for site in sites for shard in shards[: site.n_shards])
    present = sum(p.stat().st_size for f in folders.values() for p in f.glob("shard-*"))
    needed = cache_bytes(in_shards * tokens_per_row, model.cfg.d_model) - present
    check_disk(sites[0].folder, needed, "the cached activations")
    begun = sites[0].folder / "begun.json"
    this_pass = {**identity, "n_shards": {one.site.name: one.n_shards for one in sites}}
    done = _go_on(sites, begun, this_pass, model.cfg.device)
    with progress_bar(
        n_rows * context_length,
        "running the model for activations",
        initial=min(done * activations.shard_contexts, n_rows) * context_length,
    ) as bar:
        for number, shard in enumerate(shards[done:], start=done):
            for batch in shard.split(activations.batch_contexts):
                _run(model, batch.to(model.cfg.device), sites, number, corpus.first_train_position)
                bar.update(batch.numel())
            for one in sites:
                one.end_shard(number)
            made = [one.record() for one in sites]
            write_json(begun, {"pass": this_pass, "done": number + 1, "sites": made})
    for one in sites:
        one.finish(n_rows * tokens_per_row, identity, mlp_input(model, one.site.layer))
    begun.unlink(missing_ok=True)  # last, so that a pass killed before keeps all its shards


def _run(
    model: LanguageModel, batch: Tensor, sites: list["_Site"], number: int, first_position: int
) -> None:
    # A function of its own, so that the next pass finds this one's memory free: new pages cost
    # more than everything else that caching adds to the forward pass.
    passed = mlp_activations(model, batch, [one.site.layer for one in sites])
    for one in sites:
        both = passed.pop(one.site.layer)
        one.add(rounded_activations(both, first_position, one.dtype), number)


class _Site:
    """One site of a pass: sums over its tokens, and one shard, which is filled again and again.

    Attributes:
        n_shards: how many shards are written; further rows are only counted.
    """

    def __init__(
        self, site: Site, folder: Path, n_shards: int, shape: tuple[int, int], dtype: str
    ) -> None:
        self.site, self.folder, self.n_shards = site, folder, n_shards
        self.dtype = DTYPES[dtype]
        self.files: dict[str, str] = {}
        self.sums: dict[str, Tensor] = {}
        self._shard = torch.empty(2, *shape if n_shards else (0, 0), dtype=self.dtype)
        self._filled = 0

    def add(self, rounded: MLPActivations, number: int) -> None:
        """Count some tokens, and keep them if shard ``number`` is written. Shapes (token, d_model).

        Raises:
            UserError: a value does not fit the dtype.
        """
        for name, tensor in rounded._asdict().items():
            norms = tensor.float().norm(dim=1).sum(dtype=torch.float64)
            if not norms.isfinite():
                raise UserError(
                    f"{self.site.name}: an activation is too large for its dtype; set "
                    "activations.dtype to bfloat16 in the scale file"
                )
            for key, value in (("mean", tensor.double().sum(dim=0)), ("norm", norms)):
                self.sums[f"{name}_{key}"] = self.sums.get(f"{name}_{key}", 0) + value
        if number < self.n_shards:
            filled = self._filled + len(rounded.mlp_in)
            for kept, new in zip(self._shard, rounded, strict=True):
                kept[self._filled : filled] = new
            self._filled = filled

    def end_shard(self, number: int) -> None:
        """Write the tokens added since the shard before, if shard ``number`` is written."""
        if number < self.n_shards:
            path = self.folder / f"shard-{number:05d}.safetensors"
            mlp_in, mlp_out = self._shard[:, : self._filled]
            with atomic_path(path) as temporary:
                save_tensors(temporary, {"mlp_in": mlp_in, "mlp_out": mlp_out})
            self.files[path.name] = sha256(path)
            self._filled = 0

    def record(self) -> dict[str, Any]:
        """What has been made so far."""
        sums = {key: total.tolist() for key, total in self.sums.items()}
        return {"files": self.files, "sums": sums}

    def finish(self, n_tokens: int, identity: dict[str, Any], reads: str) -> None:
        """Write the statistics and, last, the record that makes the folder complete."""
        means = {key: (total / n_tokens).float().cpu() for key, total in self.sums.items()}
        statistics = Statistics(**means)
        check_varies(statistics, self.site.name, identity["dtype"])
        path = self.folder / "statistics.safetensors"
        with made_path(path) as temporary:
            save_tensors(temporary, statistics._asdict())
        record = {
            "site": self.site.name,
            "tokens": n_tokens,
            "d_model": len(statistics.mlp_in_mean),
            **identity,
            "files": {**self.files, path.name: sha256(path)},
        }
        if ".ln2." not in reads:
            record["mlp_input"] = reads
        write_json(self.folder / "activations.json", record)


def _go_on(sites: list[_Site], begun: Path, this_pass: dict[str, Any], device: Any) -> int:
    """Take over what the same pass made before it was killed; otherwise clear the folders.

    Returns:
        How many shards' worth of rows are done.
    """
    found = read_json(begun) if begun.exists() else {}
    if found.get("pass") != this_pass or any(
        not (site.folder / name).exists() or sha256(site.folder / name) != expected
        for site, made in zip(sites, found["sites"], strict=True)
        for name, expected in made["files"].items()
    ):
        for stale in [path for site in sites for path in site.folder.glob("*")]:
            stale.unlink()
        return 0
    for site, made in zip(sites, found["sites"], strict=True):
        site.files = made["files"]
        site.sums = {
            key: torch.tensor(value, dtype=torch.float64, device=device)
            for key, value in made["sums"].items()
        }
    return int(found["done"])
