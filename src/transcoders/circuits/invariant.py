"""What weights alone say of features and their connections, on any prompt (paper, section 4.2).

- De-embedding, W_E f: how much each token of the vocabulary, read straight from its embedding,
  drives a feature vector f; through a head, W_E W_V W_O f.
- Direct logit attribution (DLA), f_dec W_U: how a feature moves each logit.
- Connections, f_dec · f': between features of two layers, directly or through a head.

A model with 50,000 tokens and 25,000 features has a billion of each of these numbers. So only the
best k of each row are kept, and at most :data:`BLOCK_ENTRIES` numbers are held at a time.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from transcoders.circuits.replacement import ReplacementModel

BLOCK_ENTRIES = 2**25
"""Scores held at a time: 128 MB."""


class Best(NamedTuple):
    """The best entries of each row."""

    values: Float[Tensor, "row k"]
    indices: Int[Tensor, "row k"]

    def pairs(self) -> list[list[tuple[int, float]]]:
        """For each row its best entries: their indices and values."""
        rows = zip(self.indices.tolist(), self.values.tolist(), strict=True)
        return [list(zip(*row, strict=True)) for row in rows]


def through_head(
    replacement: ReplacementModel, vectors: Float[Tensor, "vector d_model"], layer: int, head: int
) -> Float[Tensor, "vector d_model"]:
    """What a head reads to move these vectors, if its attention and its scale are 1."""
    return vectors @ replacement.W_O[layer, head].T @ replacement.W_V[layer, head].T


def de_embeddings(
    replacement: ReplacementModel,
    vectors: Float[Tensor, "vector d_model"],
    k: int,
    *,
    largest: bool = True,
) -> Best:
    """The tokens whose embeddings drive each vector most (or least)."""
    model = replacement.model
    rows = model.W_E[: model.cfg.n_tokens]  # further rows are padding
    return best_products(replacement.centre(vectors), rows, k, largest=largest)


def direct_logits(
    replacement: ReplacementModel,
    vectors: Float[Tensor, "vector d_model"],
    k: int,
    *,
    largest: bool = True,
) -> Best:
    """The tokens whose logits each vector moves most (or least) when written: DLA.

    Up to the final norm's scale, which depends on the prompt; its weight is in ``W_U``.
    """
    model = replacement.model
    rows = model.W_U.T[: model.cfg.n_tokens]
    return best_products(replacement.centre(vectors), rows, k, largest=largest)


def connections(
    replacement: ReplacementModel,
    upstream: int,
    downstream: int,
    features: Int[Tensor, " feature"],
    k: int,
    *,
    head: tuple[int, int] | None = None,
    largest: bool = True,
) -> Best:
    """The features of an earlier layer with the strongest connections to some features.

    Args:
        replacement: with transcoders at both layers.
        upstream: the earlier layer, whose features write.
        downstream: the later layer, whose ``features`` read.
        features: of the later layer.
        k: how many.
        head: layer and head in between; None for the direct connection.
        largest: False for the most negative ones.
    """
    vectors = replacement.encoder_vectors(downstream, features)
    if head is not None:
        vectors = through_head(replacement, vectors, *head)
    return best_products(vectors, replacement.transcoders[upstream].W_dec, k, largest=largest)


def best_products(
    vectors: Float[Tensor, "vector d_model"],
    rows: Float[Tensor, "row d_model"],
    k: int,
    *,
    largest: bool = True,
) -> Best:
    """For each vector, the k rows whose product with it is largest (or smallest)."""
    size = max(BLOCK_ENTRIES // len(rows), 1)
    best = [
        (part @ rows.T).topk(min(k, len(rows)), dim=1, largest=largest)
        for part in vectors.split(size)
    ]
    return Best(*(torch.cat(parts) for parts in zip(*best, strict=True)))
