"""The inputs and outputs of MLPs, cached in shards.

One pass of the model serves every site of that model, and stops after the deepest of them. A site's
folder holds, once complete:

    shard-00000.safetensors ...   tensors ``mlp_in`` and ``mlp_out`` (tokens, d_model), 16-bit
    statistics.safetensors        means and mean norms over all tokens, float32
    cache.json                    sizes, dtype, hash of the tokens, SHA-256 of every file

Positions that do not train dictionaries are left out. A pass that was killed goes on after the last
shard that all sites have; ``cache.json`` comes last, so a folder without it is not yet a cache.
"""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from transcoders.config import Activations, Corpus, Site
from transcoders.corpus import Rows
from transcoders.errors import UserError
from transcoders.files import atomic_path, check_disk, read_json, sha256, write_json
from transcoders.models import LanguageModel, MLPActivations
from transcoders.progress import progress_bar

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


class Statistics(NamedTuple):
    """What is known of a site's activations over all training tokens."""

    mlp_in_mean: Float[Tensor, " d_model"]
    mlp_out_mean: Float[Tensor, " d_model"]
    mlp_in_norm: Float[Tensor, ""]
    """Mean over tokens of the Euclidean norm."""
    mlp_out_norm: Float[Tensor, ""]


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
        model: truncated after the deepest site, or whole.
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
    d_model = model.hf.config.hidden_size
    present = sum(p.stat().st_size for f in folders.values() for p in f.glob("shard-*"))
    check_disk(
        next(iter(folders.values())),
        cache_bytes(n_rows * tokens_per_row, d_model, len(folders)) - present,
        "the cached activations",
    )
    identity = {
        "sources": sources,
        "first_position": first,
        **activations.model_dump(mode="json"),
    }
    shards = range(0, n_rows, activations.shard_contexts)
    done = min(_complete_shards(folder, identity, len(shards)) for folder in folders.values())
    rows_done = min(done * activations.shard_contexts, n_rows)
    with progress_bar(
        n_rows * context_length, "caching activations", initial=rows_done * context_length
    ) as bar:
        for number in range(done, len(shards)):
            start = shards[number]
            chunk = rows.tokens[start : start + activations.shard_contexts]
            captured: dict[int, list[MLPActivations]] = {site.layer: [] for site in folders}
            for batch in chunk.split(activations.batch_contexts):
                passed = model.mlp_activations(batch.to(device), list(captured))
                for layer, both in passed.items():
                    captured[layer].append(_narrow(both, first, activations.dtype, layer))
                bar.update(batch.numel())
            for site, folder in folders.items():
                _write_shard(folder, number, captured[site.layer])
    for site, folder in folders.items():
        _finish(folder, identity, len(shards), n_rows * tokens_per_row, d_model, site)
    for folder in folders.values():  # last, so that a pass killed before keeps all its shards
        (folder / "begun.json").unlink()


def cache_bytes(n_tokens: int, d_model: int, n_sites: int) -> int:
    """Disk that a cache takes: two 16-bit vectors a token and site."""
    return n_tokens * d_model * n_sites * 2 * 2


def _narrow(both: MLPActivations, first: int, dtype: str, layer: int) -> MLPActivations:
    """Drop the untrained positions, flatten to (tokens, d_model) and round to the cache's dtype."""
    narrowed = MLPActivations(
        *(tensor[:, first:].flatten(0, 1).to(DTYPES[dtype]).cpu() for tensor in both)
    )
    if not all(tensor.isfinite().all() for tensor in narrowed):
        raise UserError(
            f"layer {layer}: an activation is too large for {dtype}; set activations.dtype to "
            "bfloat16 in the scale file"
        )
    return narrowed


def _write_shard(folder: Path, number: int, batches: list[MLPActivations]) -> None:
    mlp_in, mlp_out = (torch.cat(tensors) for tensors in zip(*batches, strict=True))
    with atomic_path(_shard(folder, number)) as temporary:
        save_file({"mlp_in": mlp_in, "mlp_out": mlp_out}, temporary)


def _shard(folder: Path, number: int) -> Path:
    return folder / f"shard-{number:05d}.safetensors"


def _complete_shards(folder: Path, identity: dict[str, Any], n_shards: int) -> int:
    """How many shards at the head of an unfinished cache of the same identity can be kept."""
    begun = folder / "begun.json"
    if not begun.exists() or read_json(begun) != identity:
        for stale in folder.glob("*"):
            stale.unlink()
        write_json(begun, identity)
        return 0
    present = (number for number in range(n_shards) if not _shard(folder, number).exists())
    return next(present, n_shards)


def _finish(
    folder: Path, identity: dict[str, Any], n_shards: int, n_tokens: int, d_model: int, site: Site
) -> None:
    paths = [_shard(folder, number) for number in range(n_shards)]
    statistics = _statistics(paths)
    with atomic_path(folder / "statistics.safetensors") as temporary:
        save_file(statistics._asdict(), temporary)
    paths.append(folder / "statistics.safetensors")
    record = {
        "site": site.name,
        "tokens": n_tokens,
        "d_model": d_model,
        **identity,
        "files": {path.name: sha256(path) for path in paths},
    }
    write_json(folder / "cache.json", record)


def _statistics(paths: list[Path]) -> Statistics:
    totals: dict[str, Tensor] = {}
    n_tokens = 0
    for path in paths:
        tensors = load_file(path)
        n_tokens += len(tensors["mlp_in"])
        for name, tensor in tensors.items():
            wide = tensor.float()
            for key, value in (
                (f"{name}_mean", wide.sum(dim=0, dtype=torch.float64)),
                (f"{name}_norm", wide.norm(dim=1).sum(dtype=torch.float64)),
            ):
                totals[key] = totals[key] + value if key in totals else value
    return Statistics(**{key: (value / n_tokens).float() for key, value in totals.items()})


def load_statistics(folder: Path) -> Statistics:
    """The statistics of a finished cache.

    Raises:
        UserError: the file is missing or damaged.
    """
    path = folder / "statistics.safetensors"
    try:
        return Statistics(**load_file(path))
    except (SafetensorError, OSError, TypeError) as error:
        raise UserError(f"{path}: unreadable ({error}); delete {folder} and run again") from None


class ActivationCache:
    """A finished cache of one site, memory-mapped.

    Attributes:
        n_tokens: tokens in the cache.
        d_model: width of both vectors.
        statistics: over all tokens.
        record: what ``cache.json`` holds.
    """

    def __init__(self, folder: Path, *, verify: bool = True) -> None:
        """Open a cache and check every file's SHA-256.

        Raises:
            UserError: the cache is missing or unfinished, or a file differs from what was written.
        """
        self.record = read_json(folder / "cache.json")
        self.n_tokens: int = self.record["tokens"]
        self.d_model: int = self.record["d_model"]
        for name, expected in self.record["files"].items():
            if not (folder / name).exists() or (verify and sha256(folder / name) != expected):
                raise UserError(
                    f"{folder / name}: expected the file that cache.json lists, with SHA-256 "
                    f"{expected}, found it missing, cut short or changed; delete {folder} and run "
                    "again"
                )
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
        if not 0 <= start < stop <= self.n_tokens:
            raise ValueError(
                f"expected a range within {self.n_tokens} tokens, found {start}:{stop}"
            )
        parts: list[MLPActivations] = []
        for shard in self._shards:
            n_here = len(shard.mlp_in)
            if start < n_here and stop > 0:
                here = slice(max(start, 0), min(stop, n_here))
                parts.append(MLPActivations(shard.mlp_in[here], shard.mlp_out[here]))
            start, stop = start - n_here, stop - n_here
        mlp_in, mlp_out = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        return MLPActivations(mlp_in, mlp_out)
