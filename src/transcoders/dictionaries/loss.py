"""The training loss of a dictionary, and its gradients.

With features z and error e = y - (z W_dec + b_dec), a batch of B tokens costs

    Σ_t w_t ||e_t||²  +  λ₁/B Σ_t ||z_t||₁              (paper, section 3.1)

Here w_t is 1/B, as the paper states it, or 1/(B d ||y_t||), as the released code computes it. The
gradients are written out. With r = -2 w e, the gradient of z W_dec:

    ∂z     = (r W_decᵀ + λ₁/B) where z > 0, else 0
    ∂W_dec = zᵀ r              ∂b_dec = Σ_t r_t
    ∂W_enc = xᵀ ∂z             ∂b_enc = Σ_t ∂z_t

An SAE reads x - b_dec, so W_enc ∂b_enc is subtracted from its ∂b_dec. A skip adds W_skip times the
MLP's input u to the reconstruction, and ∂W_skip = rᵀ u.

There are two ways to compute this. The dense way holds all of z. The sparse way needs all features
for the product x W_enc only, which it makes in chunks. Everything else is a sum over the active
entries of z: a few dozen for each token, out of tens of thousands. Both ways compute the same sums,
in another order. The sparse way is faster where fewer than a few percent of the entries are active.
"""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from transcoders.dictionaries.entries import (
    Entries,
    active_entries,
    chunk_size,
    decode,
    gradient_of_z,
    weighted_sums,
)
from transcoders.dictionaries.sparse_dictionary import SparseDictionary

Normalization = Literal["none", "released"]


class RowGradients(NamedTuple):
    """The gradients of ``W_enc`` and ``W_dec`` as terms of sums over active entries."""

    entries: Entries
    dz: Float[Tensor, " entries"]
    read: Float[Tensor, "batch d_in"]
    r: Float[Tensor, "batch d_out"]

    def added_up(self) -> dict[str, Tensor]:
        """Both gradients, by name.

        Row i of ∂W_dec is the sum of value · r[token] over the entries of feature i. Row i of
        ∂W_encᵀ is the sum of dz · read[token].
        """
        start, token, value = self.entries
        return {
            "W_enc": weighted_sums(self.read, token, start, self.dz).T,
            "W_dec": weighted_sums(self.r, token, start, value),
        }


class Loss(NamedTuple):
    """The loss of one batch, with its gradients."""

    loss: Float[Tensor, ""]
    squared_error: Float[Tensor, ""]
    """Σ_t ||e_t||²."""
    active: Int[Tensor, " n_features"]
    """For each feature, the number of tokens for which it is active."""
    gradients: dict[str, Tensor]
    """By the name of the parameter. The sparse way leaves out ``W_enc`` and ``W_dec``."""
    rows: RowGradients | None
    """The gradients of these two, if the sparse way was taken."""


@torch.no_grad()
def loss_and_gradients(
    dictionary: SparseDictionary,
    x: Float[Tensor, "batch d_in"],
    y: Float[Tensor, "batch d_out"],
    *,
    mlp_in: Float[Tensor, "batch d_in"] | None = None,
    l1_coefficient: float = 0.0,
    normalization: Normalization = "none",
    sparse: bool = False,
) -> Loss:
    """The loss of a batch and the gradients of all parameters.

    Args:
        dictionary: in training.
        x: input activations.
        y: target activations; for an SAE the same as ``x``.
        mlp_in: the MLP's input, which a skip reads; None where it is ``x``.
        l1_coefficient: λ₁; 0 for TopK, whose sparsity is given.
        normalization: ``none`` for the paper's weights of the squared error, ``released`` for those
            of the released code.
        sparse: whether to take the sparse way.
    """
    d, read, l1 = dictionary, dictionary.read(x), l1_coefficient / len(x)
    skipped = x if mlp_in is None else mlp_in
    if sparse:
        entries = active_entries(d, read)
        from_features = decode(entries, d.W_dec, len(x))
        l1_norm, active = entries.value.sum(), entries.active
    else:
        z = d.encode(x)
        from_features, l1_norm = z @ d.W_dec, z.sum()
        parts = [part.count_nonzero(dim=0) for part in z.split(chunk_size(z.shape[1], z))]
        active = torch.stack(parts).sum(dim=0)
    reconstruction = from_features + d.b_dec
    if d.W_skip is not None:
        reconstruction += skipped @ d.W_skip.T
    error = y - reconstruction
    squared_error = error.square().sum(dim=1)
    if normalization == "none":
        error_term = squared_error.sum() / len(x)
        weight = torch.ones_like(squared_error) / len(x)
    else:
        norm = y.norm(dim=1)
        error_term = (squared_error / norm).sum() / y.numel()
        weight = torch.ones_like(norm) / y.numel() / norm
    r = error.mul_(-2).mul_(weight[:, None])

    gradients, rows = {"b_dec": r.sum(dim=0)}, None
    if d.W_skip is not None:
        gradients["W_skip"] = r.T @ skipped
    if sparse:
        dz, gradients["b_enc"] = gradient_of_z(entries, d.W_dec, r, l1)
        rows = RowGradients(entries, dz, read, r)
    else:
        gradients |= _dense_gradients(d, read, z, r, l1)
    if not d.traits.is_transcoder:
        gradients["b_dec"] -= d.W_enc @ gradients["b_enc"]
    return Loss(error_term + l1 * l1_norm, squared_error.sum(), active, gradients, rows)


def _dense_gradients(
    d: SparseDictionary, read: Tensor, z: Tensor, r: Tensor, l1: float
) -> dict[str, Tensor]:
    """∂W_enc, ∂b_enc and ∂W_dec; ∂z is made for some features at a time."""
    W_enc_rows, W_dec = (torch.empty_like(rows) for rows in (d.W_enc.T, d.W_dec))
    b_enc = torch.empty_like(d.b_enc)
    n = chunk_size(len(read), read)
    for start in range(0, d.n_features, n):
        here = slice(start, start + n)
        z_here = z[:, here]
        dz = (r @ d.W_dec[here].T).add_(l1).mul_(z_here > 0)
        b_enc[here] = dz.sum(dim=0)
        W_enc_rows[here] = dz.T @ read
        W_dec[here] = z_here.T @ r
    return {"W_enc": W_enc_rows.T, "b_enc": b_enc, "W_dec": W_dec}
