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
    """Means over all training tokens of a site. Those of several sites stand side by side."""

    mlp_in_mean: Float[Tensor, " d_model"]
    mlp_out_mean: Float[Tensor, " d_model"]
    mlp_in_norm: Float[Tensor, ""]
    """Mean over tokens of the Euclidean norm."""
    mlp_out_norm: Float[Tensor, ""]


SAME = 1e-6
"""Vectors are all one if their mean is as long as they are on average, up to this share."""


def check_varies(statistics: Statistics, site: str, dtype: str) -> None:
    """Refuse a site where the MLP reads or writes the same vector at every token.

    Nothing can be learned there: scaling and the fraction of variance unexplained divide by zero.

    Args:
        statistics: of the site.
        site: its name.
        dtype: to which activations were rounded.

    Raises:
        UserError: they do not vary.
    """
    for side, does in (("mlp_in", "reads"), ("mlp_out", "writes")):
        mean, norm = (getattr(statistics, f"{side}_{what}") for what in ("mean", "norm"))
        if norm <= mean.norm() * (1 + SAME):
            raise UserError(
                f"{site}: expected an MLP that {does} other vectors at other tokens, found the "
                f"same at all of them (of norm {norm.item():g}, in {dtype}); choose another layer "
                "in sites, or if they are only too small, bfloat16 for activations.dtype"
            )


def identity_of(
    activations: Activations, corpus: Corpus, sources: dict[str, str]
) -> dict[str, Any]:
    """Everything that activations are a function of."""
    return {
        "sources": sources,
        "first_position": corpus.first_train_position,
        **activations.model_dump(mode="json", exclude={"mode"}),
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
    """The complete folder of one site.

    Attributes:
        record: what ``activations.json`` holds.
        statistics: over all training tokens.
    """

    def __init__(self, folder: Path, expected: dict[str, Any]) -> None:
        """Read the record and the statistics.

        Args:
            folder: of the site.
            expected: what the record must say.

        Raises:
            UserError: they are missing or damaged, or made with settings that are not the scale
                file's.
        """
        self._folder, self.remedy = folder, f"delete {folder} and run again"
        self.record = read_json(folder / "activations.json")
        for key, value in expected.items():
            if self.record.get(key) != value:
                raise UserError(
                    f"{folder / 'activations.json'}: expected {key} {value!r}, as the scale "
                    f"file says, found {self.record.get(key)!r}; {self.remedy}"
                )
        self.statistics = Statistics(**self.read_file("statistics.safetensors"))

    def read_file(self, name: str) -> dict[str, Tensor]:
        """The tensors of a file that the record lists, mapped into memory."""
        expected = self.record["files"][name]
        return read_tensors(self._folder / name, sha256=expected, remedy=self.remedy)


class InChunks:
    """Activations of one site, or of several side by side, that come in chunks.

    Attributes:
        n_tokens: how many are read, from the first.
        records: what ``activations.json`` holds, of each site.
        statistics: over all training tokens, which may be more.
    """

    def __init__(
        self, sites: list[Recorded], sizes: Iterable[int], n_tokens: int | None, device: str
    ) -> None:
        """Open them.

        Args:
            sites: their folders.
            sizes: how many tokens each chunk has.
            n_tokens: how many to read; None is all.
            device: where tokens are wanted.
        """
        self.records = [site.record for site in sites]
        self.statistics = sites[0].statistics
        if len(sites) > 1:
            of_sites = zip(*(site.statistics for site in sites), strict=True)
            self.statistics = Statistics(*map(torch.hstack, of_sites))
        self._starts = list(accumulate(sizes, initial=0))
        self.n_tokens = self._starts[-1] if n_tokens is None else n_tokens
        self._device = device

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
