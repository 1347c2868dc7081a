"""Initial weights, and the scaling of inputs and targets in training."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from transcoders.activations import Statistics
from transcoders.config import TRAITS, Kind
from transcoders.dictionaries import SparseDictionary

INITIAL_ENCODER_NORM = 0.1


@dataclass(frozen=True)
class Scaling:
    """The affine maps of training, of the MLP's input u and of the target y.

    A transcoder and every skip read (u - mlp_in_mean) · mlp_in_scale. The target is
    y · target_scale, which an SAE reads as well.
    """

    mlp_in_mean: Float[Tensor, " d_in"]
    mlp_in_scale: float
    target_mean: Float[Tensor, " d_out"]
    """The unscaled mean of the target: the first ``b_dec``, and the reference of FVU."""
    target_scale: float


def initial_dictionary(
    kind: Kind,
    n_features: int,
    b_dec: Float[Tensor, " d_model"],
    *,
    seed: int,
    k: int | None = None,
) -> SparseDictionary:
    """A dictionary with random directions, on the CPU; zero ``b_enc`` and ``W_skip``.

    Decoder rows have unit norm. Encoder columns have a small norm: at first, half of all features
    are active, and their sum must be small beside the target. The directions of encoder and decoder
    are independent, as in the released code, since a transcoder's inputs and outputs live in
    different spaces. ``W_enc`` lies in memory feature by feature, as ``W_dec`` does: its transpose
    is contiguous.

    Args:
        kind: of dictionary.
        n_features: width of the dictionary.
        b_dec: what ``b_dec`` is set to; it is as wide as inputs and targets.
        seed: of the directions, which depend on nothing else.
        k: of a TopK dictionary.
    """
    d_model, generator = len(b_dec), torch.Generator().manual_seed(seed)

    def directions() -> Tensor:
        return functional.normalize(torch.randn(n_features, d_model, generator=generator), dim=1)

    return SparseDictionary(
        kind,
        W_enc=(INITIAL_ENCODER_NORM * directions()).T,
        b_enc=torch.zeros(n_features),
        W_dec=directions(),
        b_dec=b_dec.clone(),
        W_skip=torch.zeros(d_model, d_model) if TRAITS[kind].has_skip else None,
        k=k,
    )


def scaling_of(kind: Kind, statistics: Statistics, normalize: str) -> Scaling:
    """How inputs and targets of a kind are scaled in training."""
    target = TRAITS[kind].imitates
    target_mean = getattr(statistics, f"{target}_mean")
    if normalize == "none":
        return Scaling(torch.zeros_like(statistics.mlp_in_mean), 1.0, target_mean, 1.0)
    norm = math.sqrt(len(target_mean))
    return Scaling(
        mlp_in_mean=statistics.mlp_in_mean,
        mlp_in_scale=norm / float(statistics.mlp_in_norm),
        target_mean=target_mean,
        target_scale=norm / float(getattr(statistics, f"{target}_norm")),
    )


@torch.no_grad()
def fold_scaling(trained: SparseDictionary, scaling: Scaling) -> SparseDictionary:
    """The dictionary that does on raw activations what ``trained`` does on scaled ones.

    With a and b the scales of input and target, and m the mean of a transcoder's input, the trained
    map is y·b = ReLU(a (x - m) W_enc + b_enc) W_dec + b_dec. ReLU commutes with a positive factor,
    so the division by b moves into the features, and W_dec keeps its unit rows; so does TopK. A
    skip is affine: its mean moves into b_dec. An SAE's input is its target, so that a = b and
    m = 0. It subtracts b_dec from its input, so that b_enc makes up for what moved.
    """
    is_transcoder, b = trained.traits.is_transcoder, scaling.target_scale
    a = scaling.mlp_in_scale if is_transcoder else b
    b_enc, b_dec, W_skip = trained.b_enc.detach(), trained.b_dec.detach(), None
    if is_transcoder:
        b_enc = b_enc - a * scaling.mlp_in_mean @ trained.W_enc
    if trained.W_skip is not None:
        moved = scaling.mlp_in_scale * trained.W_skip @ scaling.mlp_in_mean
        b_dec, W_skip = b_dec - moved, trained.W_skip * (scaling.mlp_in_scale / b)
        if not is_transcoder:
            b_enc = b_enc - moved @ trained.W_enc
    return SparseDictionary(
        trained.kind,
        W_enc=trained.W_enc * (a / b),
        b_enc=b_enc / b,
        W_dec=trained.W_dec.detach().clone(),
        b_dec=b_dec / b,
        W_skip=W_skip,
        k=trained.k,
    )
