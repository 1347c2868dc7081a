"""The training loss of a dictionary, and its gradients.

With features z and error e = y - (z W_dec + b_dec), a batch of B tokens t costs

    Σ_t w_t ||e_t||²  +  λ₁/B Σ_t ||z_t||₁              (paper, section 3.1)

with w_t = 1/B as the paper states it, or 1/(B d ||y_t||) as the released code computes it.

Everything around the features is plain autograd. The features themselves, x ↦ (z W_dec, Σ z), are
one of two functions whose gradients are written out. With r the gradient of z W_dec:

    ∂z     = (r W_decᵀ + λ₁/B) where z > 0, else 0
    ∂W_dec = zᵀ r
    ∂W_enc = xᵀ ∂z     ∂b_enc = Σ_t ∂z_t

An SAE reads x - b_dec, so W_enc ∂b_enc is subtracted from its ∂b_dec.

:class:`DenseFeatures` holds all of z and makes ∂z for some features at a time.
:class:`SparseFeatures` needs every feature for x W_enc only, in chunks. Everything else is a sum
over the active entries of z, a few dozen of tens of thousands for each token. Both compute the same
sums, in another order. The sparse one is faster below a density of a few percent.
"""

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from transcoders.dictionaries.entries import (
    Entries,
    Precision,
    active_entries,
    chunk_size,
    decode,
    gradient_of_z,
    product,
    weighted_sums,
)

if TYPE_CHECKING:
    from transcoders.dictionaries import SparseDictionary

Normalization = Literal["none", "released"]


class Loss(NamedTuple):
    """Of one batch."""

    loss: Float[Tensor, ""]
    """Differentiable by ``loss.backward()``."""
    squared_error: Float[Tensor, ""]
    """Σ_t ||e_t||², detached."""
    active: Int[Tensor, " n_features"]
    """Tokens for which each feature is active."""


class RowGradients(NamedTuple):
    """The gradients of ``W_enc`` and ``W_dec``, not yet added up.

    Row i of the gradient of ``W_dec`` is the sum of value · r[token] over feature i's entries. Row
    i of the gradient of ``W_encᵀ`` is the sum of dz · read[token].
    """

    entries: Entries
    dz: Float[Tensor, " entries"]
    read: Float[Tensor, "batch d_in"]
    r: Float[Tensor, "batch d_out"]


class DenseFeatures(Function):
    """z W_dec and Σ z, by matrix products over all features."""

    @staticmethod
    def forward(
        ctx: Any,
        dictionary: "SparseDictionary",
        precision: Precision,
        _: None,
        x: Tensor,
        *__: Tensor,
    ) -> tuple[Tensor, ...]:
        """Z W_dec, Σ z, and the tokens for which each feature is active."""
        z = dictionary.encode(x, precision=precision)
        parts = [part.count_nonzero(dim=0) for part in z.split(chunk_size(z.shape[1], z))]
        active = torch.stack(parts).sum(dim=0)
        ctx.dictionary, ctx.precision = dictionary, precision
        ctx.save_for_backward(x, z)
        ctx.mark_non_differentiable(active)
        return product(z, dictionary.W_dec, precision), z.sum(), active

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, r: Tensor, l1: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        """Of the arguments of ``forward``; ``r`` and ``l1`` are the gradients of its results."""
        d, precision = ctx.dictionary, ctx.precision
        x, z = ctx.saved_tensors
        read = d.read(x)
        W_enc_rows, W_dec = (torch.empty_like(rows) for rows in (d.W_enc.T, d.W_dec))
        b_enc = torch.empty_like(d.b_enc)
        n = chunk_size(len(x), x)
        for start in range(0, d.n_features, n):
            here = slice(start, start + n)
            z_here = z[:, here]
            dz = product(r, d.W_dec[here].T, precision).add_(l1).mul_(z_here > 0)
            b_enc[here] = dz.sum(dim=0)
            W_enc_rows[here] = product(dz.T, read, precision)
            W_dec[here] = product(z_here.T, r, precision)
        return None, None, None, None, W_enc_rows.T, b_enc, W_dec, _of_pre_bias(d, b_enc)


class SparseFeatures(Function):
    """z W_dec and Σ z, visiting the active entries of z only."""

    @staticmethod
    def forward(
        ctx: Any,
        dictionary: "SparseDictionary",
        precision: Precision,
        into: list[RowGradients] | None,
        x: Tensor,
        *_: Tensor,
    ) -> tuple[Tensor, ...]:
        """Z W_dec, Σ z, and the tokens for which each feature is active."""
        read = dictionary.read(x)
        entries = active_entries(dictionary, read, precision)
        ctx.dictionary, ctx.into = dictionary, into
        ctx.save_for_backward(read, *entries)
        y, ctx.by_token = decode(entries, dictionary.W_dec.detach(), len(x))
        active = entries.active
        ctx.mark_non_differentiable(active)
        return y, entries.value.sum(), active

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, r: Tensor, l1: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        """Of the arguments of ``forward``; ``r`` and ``l1`` are the gradients of its results."""
        d = ctx.dictionary
        read, *of_entries = ctx.saved_tensors
        entries = Entries(*of_entries)
        r = r.contiguous()
        dz, b_enc = gradient_of_z(entries, ctx.by_token, d.W_dec.detach(), r, l1)
        W_enc = W_dec = None
        if ctx.into is None:
            W_enc = weighted_sums(read, entries.token, entries.start, dz).T
            W_dec = weighted_sums(r, entries.token, entries.start, entries.value)
        else:
            ctx.into.append(RowGradients(entries, dz, read, r))
        return None, None, None, None, W_enc, b_enc, W_dec, _of_pre_bias(d, b_enc)


def _of_pre_bias(dictionary: "SparseDictionary", b_enc: Tensor) -> Tensor | None:
    """The gradient of an SAE's ``b_dec`` from its place in front of the encoder."""
    return None if dictionary.traits.is_transcoder else -(dictionary.W_enc.detach() @ b_enc)
