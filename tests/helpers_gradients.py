"""Random dictionaries and batches of a chosen density, and how far two results are apart."""

from typing import NamedTuple

import torch
from hypothesis import strategies as st
from torch import Tensor

from helpers_training import ALL_KINDS, NORMALIZATIONS
from transcoders.config import TRAITS, Kind
from transcoders.dictionaries import Weights
from transcoders.training import Gradients, Objective


class Problem(NamedTuple):
    weights: Weights
    x: Tensor
    y: Tensor
    objective: Objective


def pre_activations(weights: Weights, x: Tensor, *, is_sae: bool) -> Tensor:
    return (x - weights.b_dec if is_sae else x) @ weights.W_enc + weights.b_enc


def problem(
    kind: Kind,
    density: float,
    *,
    n_tokens: int = 48,
    d_in: int = 16,
    d_out: int = 16,
    n_features: int = 80,
    normalization: str = "none",
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Problem:
    """Random weights, with ``b_enc`` such that a share of the pre-activations is positive."""
    generator = torch.Generator().manual_seed(seed)
    traits = TRAITS[kind]

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype)

    x = normal(n_tokens, d_in)
    y = normal(n_tokens, d_out) if traits.is_transcoder else x
    weights = Weights(
        normal(d_in, n_features) / d_in**0.5,
        normal(n_features),
        normal(n_features, y.shape[1]),
        normal(y.shape[1]),
        normal(y.shape[1], d_in) if traits.has_skip else None,
    )
    z = pre_activations(weights, x, is_sae=not traits.is_transcoder).flatten().sort().values
    steps = torch.cat([z[:1] - 2, z, z[-1:] + 2])  # zero falls amid a step, never on a value
    first_active = round((1 - density) * len(z))
    weights.b_enc -= steps[first_active : first_active + 2].mean()
    k = max(n_features // 4, 1) if traits.is_topk else None
    l1_coefficient = 0.0 if traits.is_topk else 0.3
    return Problem(
        weights, x, y, Objective(l1_coefficient, normalization, not traits.is_transcoder, k)
    )


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    return problem(
        draw(st.sampled_from(ALL_KINDS)),
        draw(st.sampled_from([0, 1]) | st.floats(0, 1)),
        n_tokens=draw(st.integers(1, 9)),
        d_in=draw(st.integers(1, 6)),
        d_out=draw(st.integers(1, 6)),
        n_features=draw(st.integers(1, 20)),
        normalization=draw(st.sampled_from(NORMALIZATIONS)),
        seed=draw(st.integers(0, 2**32)),
        dtype=torch.float64,
    )


def distance(found: Gradients, expected: Gradients) -> dict[str, float]:
    """How far tensors are apart, relative to the largest entry: entries are sums that cancel."""

    def relative(a: Tensor, b: Tensor) -> float:
        return ((a - b).abs().max() / b.abs().max().clamp(min=1e-300)).item()

    pairs = [
        (name, (getattr(found, name), getattr(expected, name)))
        for name in ("loss", "error", "parallel")
    ]
    ours, theirs = found.by_parameter.tensors(), expected.by_parameter.tensors()
    assert ours.keys() == theirs.keys()
    pairs += [(name, (ours[name], theirs[name])) for name in theirs]
    return {name: relative(*pair) for name, pair in pairs}
