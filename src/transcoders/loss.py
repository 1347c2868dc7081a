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
sums, in another order. The sparse one is the faster one below a density of a few percent.
"""

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

if TYPE_CHECKING:
    from transcoders.dictionaries import SparseDictionary

Normalization = Literal["none", "released"]
Precision = Literal["float32", "tf32", "bf16"]
CHUNK_ENTRIES = {"cpu": 2**22, "cuda": 2**26}
"""Numbers of batch × features made at a time: 16 MB on a CPU, near its caches."""


class Loss(NamedTuple):
    """Of one batch."""

    loss: Float[Tensor, ""]
    """Differentiable by ``loss.backward()``."""
    squared_error: Float[Tensor, ""]
    """Σ_t ||e_t||², detached."""
    active: Int[Tensor, " n_features"]
    """Tokens for which each feature is active."""


class Entries(NamedTuple):
    """The active entries of z, ordered by feature, then by token."""

    start: Int[Tensor, " n_features_plus_1"]
    """Where each feature's entries begin."""
    token: Int[Tensor, " entries"]
    value: Float[Tensor, " entries"]

    @property
    def active(self) -> Int[Tensor, " n_features"]:
        """How many entries each feature has."""
        return self.start.diff()


class RowGradients(NamedTuple):
    """The gradients of ``W_enc`` and ``W_dec``, not yet added up.

    Row i of that of ``W_dec`` is the sum of value · r[token] over feature i's entries; row i of
    that of ``W_encᵀ`` is the sum of dz · read[token].
    """

    entries: Entries
    dz: Float[Tensor, " entries"]
    read: Float[Tensor, "batch d_in"]
    r: Float[Tensor, "batch d_out"]


class Options(NamedTuple):
    """How the features are computed, and where their gradients go."""

    precision: Precision
    into: list[RowGradients] | None


def loss_of(
    dictionary: "SparseDictionary",
    x: Float[Tensor, "batch d_in"],
    y: Float[Tensor, "batch d_out"],
    *,
    l1_coefficient: float,
    normalization: Normalization,
    precision: Precision,
    sparse: bool,
    into: list[RowGradients] | None,
) -> Loss:
    """What :meth:`transcoders.dictionaries.SparseDictionary.loss` documents."""
    if normalization not in ("none", "released"):
        raise ValueError(f"normalization: expected 'none' or 'released', found {normalization!r}")
    if into is not None and not sparse:
        raise ValueError("into: expected None, as only the sparse step has gradients by entries")
    d, x, y = dictionary, x.detach(), y.detach()
    from_features, l1_norm, active = (SparseFeatures if sparse else DenseFeatures).apply(
        d, Options(precision, into), x, d.W_enc, d.b_enc, d.W_dec, d.b_dec
    )
    reconstruction = from_features + d.b_dec
    if d.W_skip is not None:
        reconstruction = reconstruction + x @ d.W_skip.T
    squared_error = (y - reconstruction).square().sum(dim=1)
    if normalization == "none":
        error_term = squared_error.sum() / len(x)
    else:
        error_term = (squared_error / y.norm(dim=1)).sum() / y.numel()
    return Loss(
        error_term + l1_coefficient / len(x) * l1_norm, squared_error.detach().sum(), active
    )


class DenseFeatures(Function):
    """z W_dec and Σ z, by matrix products over all features."""

    @staticmethod
    def forward(ctx: Any, dictionary: "SparseDictionary", options: Options, x: Tensor, *_: Tensor) -> Any:  # fmt: skip
        z = dictionary.encode(x, precision=options.precision)
        active = sum(part.count_nonzero(dim=0) for part in z.split(_chunk(z.shape[1], z)))
        ctx.dictionary, ctx.options = dictionary, options
        ctx.save_for_backward(x, z)
        ctx.mark_non_differentiable(active)
        return product(z, dictionary.W_dec, options.precision), z.sum(), active

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, r: Tensor, l1: Tensor, _: None) -> tuple[Tensor | None, ...]:
        d, precision = ctx.dictionary, ctx.options.precision
        x, z = ctx.saved_tensors
        read = d.read(x)
        W_enc_rows, W_dec = (torch.empty_like(rows) for rows in (d.W_enc.T, d.W_dec))
        b_enc = torch.empty_like(d.b_enc)
        for start in range(0, d.n_features, _chunk(len(x), x)):
            here = slice(start, start + _chunk(len(x), x))
            z_here = z[:, here]
            dz = product(r, d.W_dec[here].T, precision).add_(l1).mul_(z_here > 0)
            b_enc[here] = dz.sum(dim=0)
            W_enc_rows[here] = product(dz.T, read, precision)
            W_dec[here] = product(z_here.T, r, precision)
        return None, None, None, W_enc_rows.T, b_enc, W_dec, _of_pre_bias(d, b_enc)


class SparseFeatures(Function):
    """z W_dec and Σ z, visiting the active entries of z only."""

    @staticmethod
    def forward(ctx: Any, dictionary: "SparseDictionary", options: Options, x: Tensor, *_: Tensor) -> Any:  # fmt: skip
        read = dictionary.read(x)
        entries = active_entries(dictionary, read, options.precision)
        ctx.dictionary, ctx.options = dictionary, options
        ctx.save_for_backward(read, *entries)
        y, ctx.by_token = _decode(entries, dictionary.W_dec.detach(), len(x))
        active = entries.active
        ctx.mark_non_differentiable(active)
        return y, entries.value.sum(), active

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, r: Tensor, l1: Tensor, _: None) -> tuple[Tensor | None, ...]:
        d = ctx.dictionary
        read, *of_entries = ctx.saved_tensors
        entries = Entries(*of_entries)
        r = r.contiguous()
        dz, b_enc = _gradient_of_z(entries, ctx.by_token, d.W_dec.detach(), r, l1)
        W_enc = W_dec = None
        if ctx.options.into is None:
            W_enc = _weighted_sums(read, entries.token, entries.start, dz).T
            W_dec = _weighted_sums(r, entries.token, entries.start, entries.value)
        else:
            ctx.options.into.append(RowGradients(entries, dz, read, r))
        return None, None, None, W_enc, b_enc, W_dec, _of_pre_bias(d, b_enc)


def active_entries(
    dictionary: "SparseDictionary", read: Float[Tensor, "batch d_in"], precision: Precision
) -> Entries:
    """The active entries of the features of ``read``, without holding all pre-activations.

    Args:
        dictionary: whose.
        read: the input as the encoder reads it.
        precision: of the encoder's product.
    """
    if dictionary.k is not None:
        return _topk_entries(dictionary, read, dictionary.k, precision)
    chunk = _chunk(len(read), read)
    parts = [
        _positive_entries(product(rows, read.T, precision), bias)
        for rows, bias in zip(
            dictionary.W_enc.detach().T.split(chunk),
            dictionary.b_enc.detach().split(chunk),
            strict=True,
        )
    ]
    active, token, value = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    return Entries(_starts(active), token, value)


def product(a: Tensor, b: Tensor, precision: Precision) -> Tensor:
    """a @ b in float32, of factors rounded to bf16 if that is the precision.

    TF32 is a setting of the CUDA library, made where the device is chosen.
    """
    return (a.bfloat16() @ b.bfloat16()).float() if precision == "bf16" else a @ b


def _topk_entries(
    dictionary: "SparseDictionary", read: Tensor, k: int, precision: Precision
) -> Entries:
    n_features = dictionary.n_features
    W_enc, b_enc = dictionary.W_enc.detach(), dictionary.b_enc.detach()
    values, features = [], []
    for part in read.split(_chunk(n_features, read)):
        largest = product(part, W_enc, precision).add_(b_enc).topk(k, dim=1, sorted=False)
        values.append(largest.values.flatten())
        features.append(largest.indices.flatten())
    value, feature = torch.cat(values), torch.cat(features)
    token = torch.arange(len(read), device=read.device).repeat_interleave(k)
    active = ~(value <= 0)  # NaN counts as active, so that the loss shows it
    feature = torch.where(active, feature, n_features)  # those that are not active go last
    order = torch.argsort(feature, stable=True)[: int(active.sum())]
    sizes = torch.bincount(feature[order], minlength=n_features)
    return Entries(_starts(sizes), token[order], value[order])


def _positive_entries(
    products: Float[Tensor, "features batch"], b_enc: Float[Tensor, " features"]
) -> tuple[Tensor, Tensor, Tensor]:
    """Of some features: how many entries are active, and their tokens and values.

    NaN counts as active, so that the loss shows it.
    """
    if _is_compiled(products):
        from transcoders import kernels

        active = torch.empty(len(products), dtype=torch.long)
        arrays = (products.numpy(), b_enc.numpy())
        kernels.in_threads(kernels.count_active, len(products), *arrays, active.numpy())
        start = _starts(active)
        token = torch.empty(int(start[-1]), dtype=torch.long)
        value = torch.empty(len(token), dtype=products.dtype)
        written = (start.numpy(), token.numpy(), value.numpy())
        kernels.in_threads(kernels.list_active, len(products), *arrays, *written)
        return active, token, value
    z = products.add_(b_enc[:, None])
    is_active = ~(z <= 0)
    position = is_active.view(-1).nonzero()[:, 0]
    return is_active.sum(dim=1), position % z.shape[1], z.view(-1)[position]


class _ByToken(NamedTuple):
    """The same entries ordered by token, in the graph of their decoder's output."""

    order: Int[Tensor, " entries"]
    z: Float[Tensor, " entries"]
    y: Float[Tensor, "batch d_out"]


def _decode(entries: Entries, W_dec: Tensor, n_tokens: int) -> tuple[Tensor, _ByToken | None]:
    """z W_dec, and what its gradient needs."""
    start, token, value = entries
    if _is_compiled(W_dec):
        from transcoders import kernels

        y = torch.zeros(n_tokens, W_dec.shape[1], dtype=W_dec.dtype)
        arrays = (tensor.numpy() for tensor in (start, token, value, W_dec, y))
        kernels.in_threads(kernels.add_decoded, y.shape[1], *arrays)
        return y, None
    order = torch.argsort(token, stable=True)
    token_start = _starts(torch.bincount(token, minlength=n_tokens))
    z = value[order].requires_grad_()
    with torch.enable_grad():
        y = _weighted_sums(W_dec, _feature(entries)[order], token_start, z)
    return y.detach(), _ByToken(order, z, y)


def _gradient_of_z(
    entries: Entries, by_token: _ByToken | None, W_dec: Tensor, r: Tensor, l1: Tensor
) -> tuple[Float[Tensor, " entries"], Float[Tensor, " n_features"]]:
    """∂z of the active entries, and its sums by feature."""
    dz = torch.empty_like(entries.value)
    b_enc = W_dec.new_zeros(len(W_dec))
    if by_token is None:
        from transcoders import kernels

        read = (tensor.numpy() for tensor in (entries.start, entries.token, W_dec, r))
        number = l1.to(r.dtype).numpy()[()]
        kernels.in_threads(
            kernels.gradient_of_z, len(W_dec), *read, number, dz.numpy(), b_enc.numpy()
        )
        return dz, b_enc
    (dz_by_token,) = torch.autograd.grad(by_token.y, by_token.z, r)
    dz[by_token.order] = dz_by_token
    dz += l1
    return dz, b_enc.index_add_(0, _feature(entries), dz)


def _of_pre_bias(dictionary: "SparseDictionary", b_enc: Tensor) -> Tensor | None:
    """What an SAE's ``b_dec`` gets for being subtracted from the input."""
    return None if dictionary.traits.is_transcoder else -(dictionary.W_enc.detach() @ b_enc)


def _feature(entries: Entries) -> Int[Tensor, " entries"]:
    sizes = entries.active
    numbers = torch.arange(len(sizes), device=sizes.device)
    return numbers.repeat_interleave(sizes, output_size=len(entries.token))


def _starts(sizes: Int[Tensor, " n"]) -> Int[Tensor, " n_plus_1"]:
    return functional.pad(sizes.cumsum(0), (1, 0))


def _weighted_sums(rows: Tensor, index: Tensor, start: Tensor, weight: Tensor) -> Tensor:
    """For each group i: the sum of weight[j] · rows[index[j]] over start[i] ≤ j < start[i + 1]."""
    return functional.embedding_bag(
        index, rows, start, mode="sum", per_sample_weights=weight, include_last_offset=True
    )


def _chunk(width: int, tensor: Tensor) -> int:
    """How many rows of ``width`` numbers to make at a time."""
    return max(CHUNK_ENTRIES[tensor.device.type] // width, 1)


def _is_compiled(tensor: Tensor) -> bool:
    """Whether the loops of :mod:`transcoders.kernels` apply; elsewhere PyTorch does the same."""
    return tensor.device.type == "cpu"
