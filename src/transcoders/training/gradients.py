"""Loss and gradients of one batch, with all features or with the active ones only.

With features z = ReLU(x W_enc + b_enc) and error e = y - (z W_dec + b_dec), the loss is

    Σ_t w_t ||e_t||²  +  λ₁/B Σ_t ||z_t||₁              (paper, section 3.1; B tokens t)

with w_t = 1/B as the paper states it, or 1/(B d ||y_t||) as the released code computes it. Its
gradients, with r_t = -2 w_t e_t that of the reconstruction:

    ∂z     = (r W_decᵀ + λ₁/B) where z > 0, else 0
    ∂W_dec = zᵀ r      ∂b_dec = Σ_t r_t
    ∂W_enc = xᵀ ∂z     ∂b_enc = Σ_t ∂z_t

An SAE reads x - b_dec, so W_enc ∂b_enc is subtracted from its ∂b_dec. A skip adds x W_skipᵀ to the
reconstruction, with ∂W_skip = rᵀ x.

Only x W_enc needs every feature. Everything else is a sum over the active entries of z, a few dozen
of tens of thousands for each token, and :func:`sparse_gradients` visits no others. It computes the
same sums as :func:`dense_gradients`, in another order, and makes pre-activations in chunks, so that
it never holds a tensor of batch × features. Both make the gradients of W_enc and W_dec when they
are asked for, some features at a time, so that these need not leave the processor's cache.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from transcoders.dictionaries import Weights

Precision = Literal["float32", "tf32", "bf16"]
CHUNK_ENTRIES = {"cpu": 2**22, "cuda": 2**26}
"""Pre-activations held at a time: 16 MB on a CPU, near its caches."""


class Objective(NamedTuple):
    """What is minimised at one step."""

    l1_coefficient: float
    """0 for TopK, whose sparsity is given."""
    loss_normalization: str
    is_sae: bool
    k: int | None = None
    """Features that may be active for a token; None for all with a positive pre-activation."""
    precision: Precision = "float32"


class FeatureGradients(NamedTuple):
    """Gradients of what belongs to some features: a row each."""

    W_enc: Float[Tensor, "features d_in"]
    """Transposed, as ``W_enc`` lies in memory."""
    b_enc: Float[Tensor, " features"]
    W_dec: Float[Tensor, "features d_out"]


@dataclass(frozen=True)
class Gradients:
    """The outcome of one batch."""

    loss: Float[Tensor, ""]
    error: Float[Tensor, "batch d_out"]
    """Target minus reconstruction."""
    active: Int[Tensor, " n_features"]
    """Tokens for which each feature is active."""
    parallel: Float[Tensor, " n_features"]
    """Component of each row of ``W_dec``'s gradient along that row."""
    of_features: Callable[[int, int], FeatureGradients]
    """Of the features from the first number to the second (exclusive); computed at every call."""
    b_dec: Float[Tensor, " d_out"]
    W_skip: Float[Tensor, "d_out d_in"] | None

    @property
    def by_parameter(self) -> Weights:
        """All gradients at once."""
        of_all = self.of_features(0, len(self.active))
        return Weights(of_all.W_enc.T, of_all.b_enc, of_all.W_dec, self.b_dec, self.W_skip)


class Entries(NamedTuple):
    """The active entries of z, ordered by feature, then by token."""

    feature: Int[Tensor, " entries"]
    token: Int[Tensor, " entries"]
    value: Float[Tensor, " entries"]


def dense_gradients(
    weights: Weights,
    x: Float[Tensor, "batch d_in"],
    y: Float[Tensor, "batch d_out"],
    objective: Objective,
) -> Gradients:
    """Loss and gradients by matrix products over all features."""
    read = x - weights.b_dec if objective.is_sae else x
    weight = _error_weight(y, objective.loss_normalization)
    # z and dz are held transposed: a feature's tokens lie together.
    z = _product(weights.W_enc.T, read.T, objective.precision)
    z.add_(weights.b_enc[:, None]).relu_()
    if objective.k is not None:
        largest = z.topk(objective.k, dim=0)
        z = torch.zeros_like(z).scatter_(0, largest.indices, largest.values)
    error = _error(weights, x, y, _product(z.T, weights.W_dec, objective.precision))
    r = -2 * weight * error
    dz = _product(weights.W_dec, r.T, objective.precision)
    active, parallel, b_enc = [], [], []
    n_features_at_a_time = max(CHUNK_ENTRIES[x.device.type] // len(x), 1)
    for z_here, dz_here in zip(
        z.split(n_features_at_a_time), dz.split(n_features_at_a_time), strict=True
    ):
        is_active = z_here > 0
        active.append(is_active.sum(dim=1))
        parallel.append(torch.linalg.vecdot(z_here, dz_here))
        dz_here.add_(objective.l1_coefficient / len(x)).mul_(is_active)
        b_enc.append(dz_here.sum(dim=1))
    all_b_enc = torch.cat(b_enc)

    def of_features(start: int, stop: int) -> FeatureGradients:
        return FeatureGradients(
            _product(dz[start:stop], read, objective.precision),
            all_b_enc[start:stop],
            _product(z[start:stop], r, objective.precision),
        )

    return _assemble(
        weights, x, error, weight, objective, z.sum(),
        b_enc=all_b_enc,
        active=torch.cat(active),
        parallel=torch.cat(parallel),
        of_features=of_features,
    )  # fmt: skip


def sparse_gradients(
    weights: Weights,
    x: Float[Tensor, "batch d_in"],
    y: Float[Tensor, "batch d_out"],
    objective: Objective,
) -> Gradients:
    """The same as :func:`dense_gradients`, visiting the active entries of z only."""
    n_tokens, n_features = len(x), len(weights.W_dec)
    read = x - weights.b_dec if objective.is_sae else x
    feature, token, value = _active_entries(weights, read, objective)
    feature_start, active = _starts(feature, n_features)
    by_token = torch.argsort(token, stable=True)
    token_start, _ = _starts(token, n_tokens)

    # Autograd's part is one product: the rows of W_dec by the entries of z that weigh them.
    z = value[by_token].requires_grad_()
    with torch.enable_grad():
        from_features = _weighted_sums(weights.W_dec, feature[by_token], token_start, z)
    weight = _error_weight(y, objective.loss_normalization)
    error = _error(weights, x, y, from_features.detach())
    r = -2 * weight * error
    (dz_by_token,) = torch.autograd.grad(from_features, z, r)
    dz = torch.empty_like(value)
    dz[by_token] = dz_by_token
    parallel = torch.zeros_like(weights.b_enc).index_add_(0, feature, value * dz)
    dz += objective.l1_coefficient / n_tokens
    b_enc = torch.zeros_like(weights.b_enc).index_add_(0, feature, dz)

    def of_features(start: int, stop: int) -> FeatureGradients:
        starts = feature_start[start : stop + 1]
        here = slice(int(starts[0]), int(starts[-1]))
        tokens, starts = token[here], starts - starts[0]
        return FeatureGradients(
            _weighted_sums(read, tokens, starts, dz[here]),
            b_enc[start:stop],
            _weighted_sums(r, tokens, starts, value[here]),
        )

    return _assemble(
        weights, x, error, weight, objective, value.sum(),
        b_enc=b_enc, active=active, parallel=parallel, of_features=of_features,
    )  # fmt: skip


def _active_entries(
    weights: Weights, read: Float[Tensor, "batch d_in"], objective: Objective
) -> Entries:
    if objective.k is not None:
        return _topk_entries(weights, read, objective.k, objective.precision)
    n_tokens = len(read)
    parts = []
    chunk = max(CHUNK_ENTRIES[read.device.type] // n_tokens, 1)
    transposed = read.T
    for start in range(0, len(weights.W_dec), chunk):
        here = slice(start, start + chunk)
        b_enc = weights.b_enc[here]
        products = _product(weights.W_enc.T[here], transposed, objective.precision)
        position = _where_above(products, -b_enc)
        feature, token = position // n_tokens, position % n_tokens
        value = products.view(-1)[position] + b_enc[feature]
        parts.append(Entries(feature + start, token, value))
    return Entries(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


def _topk_entries(
    weights: Weights, read: Float[Tensor, "batch d_in"], k: int, precision: Precision
) -> Entries:
    n_tokens, n_features = len(read), len(weights.W_dec)
    values, features = [], []
    for part in read.split(max(CHUNK_ENTRIES[read.device.type] // n_features, 1)):
        z = _product(part, weights.W_enc, precision).add_(weights.b_enc).relu_()
        value, feature = z.topk(k, dim=1, sorted=False)
        values.append(value.flatten())
        features.append(feature.flatten())
    value, feature = torch.cat(values), torch.cat(features)
    token = torch.arange(n_tokens, device=read.device).repeat_interleave(k)
    active = ~(value <= 0)  # NaN counts as active, so that the loss shows it
    feature = torch.where(active, feature, n_features)  # those that are not active go last
    order = torch.argsort(feature, stable=True)[: int(active.sum())]
    return Entries(feature[order], token[order], value[order])


def _assemble(
    weights: Weights,
    x: Tensor,
    error: Tensor,
    weight: Tensor,
    objective: Objective,
    l1_norm: Tensor,
    *,
    b_enc: Tensor,
    **of_features: Any,
) -> Gradients:
    """What follows from the error and the sums over features, whichever way they were taken."""
    r = -2 * weight * error
    b_dec = r.sum(dim=0)
    if objective.is_sae:
        b_dec -= weights.W_enc @ b_enc
    return Gradients(
        loss=(weight[:, 0] @ error.square().sum(dim=1))
        + objective.l1_coefficient / len(x) * l1_norm,
        error=error,
        b_dec=b_dec,
        W_skip=None if weights.W_skip is None else r.T @ x,
        **of_features,
    )


def _error_weight(y: Float[Tensor, "batch d_out"], normalization: str) -> Float[Tensor, "batch 1"]:
    if normalization == "none":
        return torch.full_like(y[:, :1], 1 / len(y))
    return 1 / (y.norm(dim=1, keepdim=True) * y.numel())


def _error(weights: Weights, x: Tensor, y: Tensor, from_features: Tensor) -> Tensor:
    reconstruction = from_features + weights.b_dec
    if weights.W_skip is not None:
        reconstruction = reconstruction + x @ weights.W_skip.T
    return y - reconstruction


def _product(a: Tensor, b: Tensor, precision: Precision) -> Tensor:
    # TF32 is a setting of the CUDA library, made where the device is chosen.
    return (a.bfloat16() @ b.bfloat16()).float() if precision == "bf16" else a @ b


def _where_above(
    rows: Float[Tensor, "row column"], threshold: Float[Tensor, " row"]
) -> Int[Tensor, " entries"]:
    """Positions in the flattened ``rows`` of the entries above their row's threshold.

    NaN counts as above, so that the loss shows it.
    """
    if rows.device.type == "cpu":  # NumPy on one core takes a third of PyTorch's time
        return torch.from_numpy(np.flatnonzero(~(rows.numpy() <= threshold[:, None].numpy())))
    return (~(rows <= threshold[:, None])).view(-1).nonzero()[:, 0]


def _starts(
    sorted_or_not: Int[Tensor, " entries"], n: int
) -> tuple[Int[Tensor, " n_plus_1"], Int[Tensor, " n"]]:
    """Where each of n groups starts once entries are sorted by group, and the groups' sizes."""
    sizes = torch.bincount(sorted_or_not, minlength=n)
    return functional.pad(sizes.cumsum(0), (1, 0)), sizes


def _weighted_sums(rows: Tensor, index: Tensor, start: Tensor, weight: Tensor) -> Tensor:
    """For each group i: the sum of weight[j] · rows[index[j]] over start[i] ≤ j < start[i + 1]."""
    return functional.embedding_bag(
        index, rows, start, mode="sum", per_sample_weights=weight, include_last_offset=True
    )
