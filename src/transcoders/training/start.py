"""Where training starts: the scaling of inputs and targets, and the initial weights."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from transcoders.activations import Statistics
from transcoders.config import TRAITS, Kind
from transcoders.dictionaries import Weights

INITIAL_ENCODER_NORM = 0.1


@dataclass(frozen=True)
class Scaling:
    """The affine maps of training: (x - input_mean) · input_scale, and y · target_scale."""

    input_mean: Float[Tensor, " d_in"]
    input_scale: float
    target_scale: float
    target_mean: Float[Tensor, " d_out"]
    """Of the target, unscaled: where ``b_dec`` starts, and what FVU compares with."""


def initial_weights(
    d_model: int,
    n_features: int,
    b_dec: Float[Tensor, " d_model"],
    *,
    seed: int,
    has_skip: bool = False,
) -> Weights:
    """Random directions; zero ``b_enc`` and ``W_skip``.

    Decoder rows have unit norm and encoder columns a small one, so that the sum of thousands of
    features that are all half active starts out small beside the target. The directions of encoder
    and decoder are independent, as in the released code: a transcoder's live in different spaces.
    ``W_enc`` lies in memory feature by feature, as ``W_dec`` does: its transpose is contiguous.
    """
    generator = torch.Generator().manual_seed(seed)

    def directions() -> Tensor:
        return functional.normalize(torch.randn(n_features, d_model, generator=generator), dim=1)

    return Weights(
        W_enc=(INITIAL_ENCODER_NORM * directions()).T,
        b_enc=torch.zeros(n_features),
        W_dec=directions(),
        b_dec=b_dec.clone(),
        W_skip=torch.zeros(d_model, d_model) if has_skip else None,
    )


def scaling_of(kind: Kind, statistics: Statistics, d_model: int, normalize: str) -> Scaling:
    """How inputs and targets of a kind are scaled in training."""
    traits = TRAITS[kind]
    target_mean = getattr(statistics, f"{traits.imitates}_mean")
    target_norm = getattr(statistics, f"{traits.imitates}_norm")
    if normalize == "none":
        return Scaling(torch.zeros_like(target_mean), 1.0, 1.0, target_mean)
    target_scale = math.sqrt(d_model) / target_norm.item()
    if not traits.is_transcoder:
        return Scaling(torch.zeros_like(target_mean), target_scale, target_scale, target_mean)
    input_scale = math.sqrt(d_model) / statistics.mlp_in_norm.item()
    return Scaling(statistics.mlp_in_mean, input_scale, target_scale, target_mean)


def fold_scaling(weights: Weights, scaling: Scaling) -> Weights:
    """Weights that do on raw activations what ``weights`` do on scaled ones.

    With a the input scale, m the input mean and b the target scale, the trained map is
    y·b = ReLU(a (x - m) W_enc + b_enc) W_dec + b_dec. ReLU commutes with a positive factor, so the
    division by b moves into the features, and W_dec keeps its unit rows; so does TopK. A skip is
    affine: a (x - m) W_skipᵀ / b.
    """
    a, b = scaling.input_scale, scaling.target_scale
    b_dec, W_skip = weights.b_dec, weights.W_skip
    if W_skip is not None:
        b_dec = b_dec - a * W_skip @ scaling.input_mean
        W_skip = W_skip * (a / b)
    return Weights(
        W_enc=weights.W_enc * (a / b),
        b_enc=(weights.b_enc - a * scaling.input_mean @ weights.W_enc) / b,
        W_dec=weights.W_dec,
        b_dec=b_dec / b,
        W_skip=W_skip,
    )
