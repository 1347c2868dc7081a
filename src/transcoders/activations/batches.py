"""What a forward pass gives to training: the same rows, positions and rounding in every mode."""

from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor

from transcoders.config import Activations, Corpus
from transcoders.models import MLPActivations

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


def identity_of(
    activations: Activations, corpus: Corpus, sources: dict[str, str]
) -> dict[str, Any]:
    """Everything that activations are a function of."""
    return {
        "sources": sources,
        "first_position": corpus.first_train_position,
        **activations.model_dump(mode="json", exclude={"disk_limit_gb"}),
    }


def batches_of_rows(
    tokens: Shaped[Tensor, "rows position"], activations: Activations
) -> list[Shaped[Tensor, "batch position"]]:
    """The rows of each forward pass.

    The same in every mode, since a row's last digits depend on which rows pass with it.
    """
    return [
        batch
        for shard in tokens.split(activations.shard_contexts)
        for batch in shard.split(activations.batch_contexts)
    ]


def rounded_activations(
    both: MLPActivations, first_position: int, dtype: torch.dtype
) -> MLPActivations:
    """What training sees of a forward pass: the trained positions, one after another, in 16 bits.

    Args:
        both: tensors of shape (row, position, d_model).
        first_position: those before it do not train dictionaries.
        dtype: of the result, two tensors of shape (token, d_model).
    """
    return MLPActivations(*(tensor[:, first_position:].flatten(0, 1).to(dtype) for tensor in both))


def check_range(start: int, stop: int, n_tokens: int) -> None:
    """Refuse a range that is empty or reaches beyond the tokens there are, by a ValueError."""
    if not 0 <= start < stop <= n_tokens:
        raise ValueError(f"expected a range within {n_tokens} tokens, found {start}:{stop}")
