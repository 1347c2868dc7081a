"""Random dictionaries and batches of a chosen density, and what their loss is."""

from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

from helpers_training import ALL_KINDS
from transcoders.config import TRAITS
from transcoders.dictionaries import SparseDictionary, entries
from transcoders.dictionaries.loss import loss_and_gradients

WAYS = ("dense", "sparse", "sparse in PyTorch")
"""The last is what a GPU does."""


class Problem(NamedTuple):
    dictionary: SparseDictionary
    x: Tensor
    y: Tensor
    l1_coefficient: float
    mlp_in: Tensor | None
    normalization: Any = "none"

    def z(self):
        return self.dictionary.encode(self.x).detach()

    def loss(self, way):
        """By one of WAYS."""
        with pytest.MonkeyPatch.context() as patch:
            if way == "sparse in PyTorch":
                patch.setattr(entries, "_is_compiled", lambda _: False)
            return loss_and_gradients(
                self.dictionary, self.x, self.y, mlp_in=self.mlp_in,
                l1_coefficient=self.l1_coefficient, normalization=self.normalization,
                sparse=way != "dense",
            )  # fmt: skip

    def gradients(self, way):
        found = self.loss(way)
        return found.gradients | (found.rows.added_up() if found.rows else {})


def problem(
    kind, density, *, n_tokens=48, d_in=16, d_out=16, n_features=80, seed=0, dtype=torch.float32
):
    """Random weights, with ``b_enc`` such that a share of the pre-activations is positive."""
    generator = torch.Generator().manual_seed(seed)
    traits = TRAITS[kind]

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=dtype)

    x = normal(n_tokens, d_in)
    y = normal(n_tokens, d_out) if traits.is_transcoder else x
    dictionary = SparseDictionary(
        kind,
        W_enc=normal(n_features, d_in).T / d_in**0.5,
        b_enc=normal(n_features),
        W_dec=normal(n_features, y.shape[1]),
        b_dec=normal(y.shape[1]),
        W_skip=normal(y.shape[1], d_in) if traits.has_skip else None,
        k=max(n_features // 4, 1) if traits.is_topk else None,
    )
    z = (dictionary.read(x) @ dictionary.W_enc + dictionary.b_enc).flatten().sort().values
    steps = torch.cat([z[:1] - 2, z, z[-1:] + 2])  # zero falls amid a step, never on a value
    first_active = round((1 - density) * len(z))
    dictionary.b_enc -= steps[first_active : first_active + 2].mean()
    l1_coefficient = 0.0 if traits.is_topk else 0.3
    mlp_in = normal(n_tokens, d_in) if kind == "skip_sae" else None
    return Problem(dictionary, x, y, l1_coefficient, mlp_in)


@st.composite
def problems(draw):
    made = problem(
        draw(st.sampled_from(ALL_KINDS)),
        draw(st.sampled_from([0, 1]) | st.floats(0, 1)),
        n_tokens=draw(st.integers(1, 9)),
        d_in=draw(st.integers(1, 6)),
        d_out=draw(st.integers(1, 6) | st.just(130)),  # more than a dot product's partial sums
        n_features=draw(st.integers(1, 20)),
        seed=draw(st.integers(0, 2**32)),
        dtype=torch.float64,
    )
    return made._replace(normalization=draw(st.sampled_from(["none", "released"])))


def plain_loss(p):
    """Equations 4 and 5 of the paper, token by token, with the extensions."""
    d = p.dictionary.requires_grad_()
    total = torch.zeros((), dtype=p.x.dtype)
    for x, y, u in zip(p.x, p.y, p.x if p.mlp_in is None else p.mlp_in, strict=True):
        read = x if TRAITS[d.kind].is_transcoder else x - d.b_dec
        z = (read @ d.W_enc + d.b_enc).clamp(min=0)
        if d.k is not None:
            z = torch.where(z >= z.sort().values[-d.k], z, 0)
        reconstruction = z @ d.W_dec + d.b_dec
        if d.W_skip is not None:
            reconstruction = reconstruction + d.W_skip @ u
        error = ((y - reconstruction) ** 2).sum()
        if p.normalization == "released":
            error = error / (y**2).sum().sqrt() / len(y)
        total = total + error + p.l1_coefficient * z.sum()
    return total / len(p.x)


def distance(found, expected):
    """Relative to the largest entry: entries are sums that cancel."""
    return ((found - expected).abs().max() / expected.abs().max().clamp(min=1e-30)).item()
