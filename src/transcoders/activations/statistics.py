"""What is known of a site's activations over all training tokens, and the record of it."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from transcoders.checksums import check_made, sha256
from transcoders.config import Site
from transcoders.errors import UserError
from transcoders.files import made_path, read_json, save_tensors, write_json
from transcoders.models import MLPActivations


class Statistics(NamedTuple):
    """Means over all training tokens of a site."""

    mlp_in_mean: Float[Tensor, " d_model"]
    mlp_out_mean: Float[Tensor, " d_model"]
    mlp_in_norm: Float[Tensor, ""]
    """Mean over tokens of the Euclidean norm."""
    mlp_out_norm: Float[Tensor, ""]


class Totals:
    """Sums over tokens, added up batch by batch."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.n_tokens = 0
        self._sums: dict[str, Tensor] = {}

    def add(self, both: MLPActivations) -> None:
        """Add a batch of rounded activations.

        Raises:
            UserError: a value does not fit their dtype.
        """
        self.n_tokens += len(both.mlp_in)
        for name, tensor in both._asdict().items():
            norms = tensor.float().norm(dim=1).sum(dtype=torch.float64)
            if not norms.isfinite():  # as one of the values is not
                raise UserError(
                    f"{self.site.name}: an activation is too large for its dtype; set "
                    "activations.dtype to bfloat16 in the scale file"
                )
            for key, value in (
                (f"{name}_mean", tensor.double().sum(dim=0)),
                (f"{name}_norm", norms),
            ):
                self._sums[key] = self._sums[key] + value if key in self._sums else value

    def means(self) -> Statistics:
        """Of what was added."""
        return Statistics(
            **{key: (total / self.n_tokens).float().cpu() for key, total in self._sums.items()}
        )


def save_statistics(
    folder: Path, totals: Totals, identity: dict[str, Any], shards: dict[str, str]
) -> None:
    """Write the statistics and, last, the record that makes the folder complete.

    ``shards`` are the hashes of the files that the folder holds besides, by name.
    """
    statistics = totals.means()
    path = folder / "statistics.safetensors"
    with made_path(path) as temporary:
        save_tensors(temporary, statistics._asdict())
    record = {
        "site": totals.site.name,
        "tokens": totals.n_tokens,
        "d_model": len(statistics.mlp_in_mean),
        **identity,
        "files": {**shards, path.name: sha256(path)},
    }
    write_json(folder / "activations.json", record)


def load_record(folder: Path, mode: str, *, verify: bool = True) -> dict[str, Any]:
    """The record of a complete folder, and a check of the files that it lists.

    Args:
        folder: of one site.
        mode: as the scale file has it.
        verify: whether to compute every file's SHA-256, besides looking whether it is there.

    Raises:
        UserError: the record is missing or of the other mode, or a file is missing or differs from
            what was written.
    """
    path = folder / "activations.json"
    record = read_json(path)
    found = record.get("mode")
    if found != mode:
        raise UserError(
            f"{path}: expected activations of mode {mode}, as the scale file says, found {found}; "
            f"delete {folder} and run again"
        )
    for name, expected in record["files"].items():
        if not (folder / name).exists() or (verify and sha256(folder / name) != expected):
            raise UserError(
                f"{folder / name}: expected the file that activations.json lists, with SHA-256 "
                f"{expected}, found it missing, cut short or changed; delete {folder} and run again"
            )
    return record


def load_statistics(folder: Path) -> Statistics:
    """The statistics of a complete folder.

    Raises:
        UserError: the file is missing, damaged or was changed since it was made.
    """
    path = folder / "statistics.safetensors"
    check_made(path)
    try:
        return Statistics(**load_file(path))
    except (SafetensorError, OSError, TypeError) as error:
        raise UserError(f"{path}: unreadable ({error}); delete {folder} and run again") from None
