"""What every mode shares: rounding, means, the record of a site, and how it is read."""

from bisect import bisect_right
from collections.abc import Iterable
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from transcoders.config import Activations, Corpus
from transcoders.errors import UserError
from transcoders.files import read_json, read_tensors
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


class Recorded:
    """The complete folder of one site. Its tokens come in chunks: shards, or forward passes.

    Attributes:
        n_tokens: training tokens.
        d_model: width of both vectors.
        statistics: over all tokens.
        record: what ``activations.json`` holds.
    """

    def __init__(self, folder: Path, expected: dict[str, Any], device: str) -> None:
        """Read the record and the statistics.

        Args:
            folder: of the site.
            expected: what the record must say.
            device: where tokens are wanted.

        Raises:
            UserError: they are missing or damaged, or made with settings that are not the scale
                file's.
        """
        self._folder, self._remedy = folder, f"delete {folder} and run again"
        self._device = device
        self.record = read_json(folder / "activations.json")
        for key, value in expected.items():
            if self.record.get(key) != value:
                raise UserError(
                    f"{folder / 'activations.json'}: expected {key} {value!r}, as the scale "
                    f"file says, found {self.record.get(key)!r}; {self._remedy}"
                )
        self.n_tokens: int = self.record["tokens"]
        self.d_model: int = self.record["d_model"]
        self.statistics = Statistics(**self._read_file("statistics.safetensors"))
        self._starts: list[int] = []

    def _read_file(self, name: str) -> dict[str, Tensor]:
        """The tensors of a file that the record lists, mapped into memory."""
        expected = self.record["files"][name]
        return read_tensors(self._folder / name, sha256=expected, remedy=self._remedy)

    def _set_sizes(self, sizes: Iterable[int]) -> None:
        """Say how many tokens each chunk has."""
        self._starts = list(accumulate(sizes, initial=0))

    def _chunk(self, number: int) -> MLPActivations:
        raise NotImplementedError

    def read(self, start: int, stop: int) -> MLPActivations:
        """Tokens ``start`` to ``stop`` (exclusive): 16-bit tensors of shape (tokens, d_model)."""
        shape, dtype = (2, stop - start, self.d_model), DTYPES[self.record["dtype"]]
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
