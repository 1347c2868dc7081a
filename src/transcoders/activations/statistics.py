"""What every mode shares: the rows of a forward pass, rounding, means, and the record of a site."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from transcoders.checksums import sha256
from transcoders.config import Activations, Corpus, Site
from transcoders.errors import UserError
from transcoders.files import made_path, read_json, read_tensors, save_tensors, write_json
from transcoders.models import MLPActivations

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


class Statistics(NamedTuple):
    """Means over all training tokens of a site."""

    mlp_in_mean: Float[Tensor, " d_model"]
    mlp_out_mean: Float[Tensor, " d_model"]
    mlp_in_norm: Float[Tensor, ""]
    """Mean over tokens of the Euclidean norm."""
    mlp_out_norm: Float[Tensor, ""]


def identity_of(
    activations: Activations, corpus: Corpus, sources: dict[str, str]
) -> dict[str, Any]:
    """Everything that activations are a function of."""
    return {
        "sources": sources,
        "first_position": corpus.first_train_position,
        **activations.model_dump(mode="json"),
    }


def batches_of_rows(
    tokens: Shaped[Tensor, "rows position"], activations: Activations
) -> list[Shaped[Tensor, "batch position"]]:
    """The rows of each forward pass.

    They are the same in every mode, since the last digits of a row depend on the rows that pass
    with it.
    """
    return [
        batch
        for shard in tokens.split(activations.shard_contexts)
        for batch in shard.split(activations.batch_contexts)
    ]


def rounded_activations(
    both: MLPActivations, first_position: int, dtype: torch.dtype
) -> MLPActivations:
    """What training sees of a forward pass: the trained positions, one after another.

    Args:
        both: tensors of shape (row, position, d_model).
        first_position: earlier positions do not train dictionaries.
        dtype: of the result, two tensors of shape (token, d_model).
    """
    return MLPActivations(*(tensor[:, first_position:].flatten(0, 1).to(dtype) for tensor in both))


class Totals:
    """Sums over the tokens of a site, added up batch by batch."""

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
            if not norms.isfinite():
                raise UserError(
                    f"{self.site.name}: an activation is too large for its dtype; set "
                    "activations.dtype to bfloat16 in the scale file"
                )
            means = {f"{name}_mean": tensor.double().sum(dim=0), f"{name}_norm": norms}
            for key, value in means.items():
                self._sums[key] = self._sums[key] + value if key in self._sums else value

    def save(self, folder: Path, identity: dict[str, Any], shards: dict[str, str]) -> None:
        """Write the statistics and, last, the record that makes the folder complete.

        Args:
            folder: of the site.
            identity: what the activations are a function of.
            shards: SHA-256 of the other files of the folder, by name.
        """
        statistics = Statistics(
            **{key: (total / self.n_tokens).float().cpu() for key, total in self._sums.items()}
        )
        path = folder / "statistics.safetensors"
        with made_path(path) as temporary:
            save_tensors(temporary, statistics._asdict())
        record = {
            "site": self.site.name,
            "tokens": self.n_tokens,
            "d_model": len(statistics.mlp_in_mean),
            **identity,
            "files": {**shards, path.name: sha256(path)},
        }
        write_json(folder / "activations.json", record)


def load_statistics(folder: Path) -> Statistics:
    """The statistics of a site.

    Raises:
        UserError: the file is missing, damaged or was changed since it was made.
    """
    remedy = f"delete {folder} and run again"
    return Statistics(**read_tensors(folder / "statistics.safetensors", remedy=remedy))


class Recorded:
    """The complete folder of one site.

    Attributes:
        n_tokens: training tokens.
        d_model: width of both vectors.
        statistics: over all tokens.
        record: what ``activations.json`` holds.
    """

    def __init__(self, folder: Path, mode: str) -> None:
        """Read the record and the statistics.

        Raises:
            UserError: they are missing, damaged or of another mode than the scale file says.
        """
        self._folder, self._remedy = folder, f"delete {folder} and run again"
        self.record = read_json(folder / "activations.json")
        self.check({"mode": mode})
        self.n_tokens: int = self.record["tokens"]
        self.d_model: int = self.record["d_model"]
        self.statistics = Statistics(**self.read_file("statistics.safetensors"))

    def check(self, expected: dict[str, Any]) -> None:
        """Compare the record with what the scale file asks for.

        Raises:
            UserError: a value differs.
        """
        for key, value in expected.items():
            if self.record.get(key) != value:
                raise UserError(
                    f"{self._folder / 'activations.json'}: expected {key} {value!r}, as the scale "
                    f"file says, found {self.record.get(key)!r}; {self._remedy}"
                )

    def read_file(self, name: str) -> dict[str, Tensor]:
        """The tensors of a file that the record lists, mapped into memory.

        Raises:
            UserError: it is missing, damaged or was changed.
        """
        expected = self.record["files"][name]
        return read_tensors(self._folder / name, sha256=expected, remedy=self._remedy)
