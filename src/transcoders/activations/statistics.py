"""What writing and reading activations share: rounding, means, and what identifies them."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from transcoders.config import Activations, Corpus
from transcoders.errors import UserError
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
"""Vectors count as one if their mean is as long as they are on average, up to this share."""


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
                f"{site}: expected an MLP that {does} different vectors at different tokens, "
                f"found the same one at all of them (of norm {norm.item():g}, in {dtype}); choose "
                "another layer in sites, or if the vectors are only too small, set "
                "activations.dtype to bfloat16"
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
