"""The active entries of z: finding them, decoding them, and the gradient with respect to them.

On a CPU, compiled loops visit them feature by feature (``kernels``). Elsewhere PyTorch's operations
do the same, some of them token by token.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from transcoders.dictionaries.sparse_dictionary import SparseDictionary

CHUNK_ENTRIES = {"cpu": 2**22, "cuda": 2**26}
"""Numbers of batch × features made at a time: 16 MB on a CPU, near its caches."""


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

    @property
    def feature(self) -> Int[Tensor, " entries"]:
        """The feature of each entry."""
        numbers = torch.arange(len(self.start) - 1, device=self.start.device)
        return numbers.repeat_interleave(self.active, output_size=len(self.token))


def active_entries(dictionary: SparseDictionary, read: Float[Tensor, "batch d_in"]) -> Entries:
    """The active entries of the features of ``read``, without holding all pre-activations.

    Args:
        dictionary: whose.
        read: the input as the encoder reads it.
    """
    if dictionary.k is not None:
        return _topk_entries(dictionary, read, dictionary.k)
    chunk = chunk_size(len(read), read)
    parts = [
        _positive_entries(rows @ read.T, bias)
        for rows, bias in zip(
            dictionary.W_enc.T.split(chunk), dictionary.b_enc.split(chunk), strict=True
        )
    ]
    active, token, value = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    return Entries(_starts(active), token, value)


def _topk_entries(dictionary: SparseDictionary, read: Tensor, k: int) -> Entries:
    n_features = dictionary.n_features
    W_enc, b_enc = dictionary.W_enc, dictionary.b_enc
    values, features = [], []
    for part in read.split(chunk_size(n_features, read)):
        largest = (part @ W_enc).add_(b_enc).topk(k, dim=1, sorted=False)
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
    """For some features: how many entries are active, and their tokens and values.

    NaN counts as active, so that the loss shows it.
    """
    if _is_compiled(products):
        from transcoders.dictionaries import kernels

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


def decode(
    entries: Entries, W_dec: Float[Tensor, "n_features d_out"], n_tokens: int
) -> Float[Tensor, "batch d_out"]:
    """Z W_dec."""
    start, token, value = entries
    if _is_compiled(W_dec):
        from transcoders.dictionaries import kernels

        y = torch.zeros(n_tokens, W_dec.shape[1], dtype=W_dec.dtype)
        arrays = (tensor.numpy() for tensor in (start, token, value, W_dec, y))
        kernels.in_threads(kernels.add_decoded, y.shape[1], *arrays)
        return y
    order = torch.argsort(token, stable=True)
    token_start = _starts(torch.bincount(token, minlength=n_tokens))
    return weighted_sums(W_dec, entries.feature[order], token_start, value[order])


def gradient_of_z(
    entries: Entries,
    W_dec: Float[Tensor, "n_features d_out"],
    r: Float[Tensor, "batch d_out"],
    l1: float,
) -> tuple[Float[Tensor, " entries"], Float[Tensor, " n_features"]]:
    """∂z of the active entries, and its sums by feature."""
    b_enc = W_dec.new_zeros(len(W_dec))
    if _is_compiled(W_dec):
        from transcoders.dictionaries import kernels

        dz = torch.empty_like(entries.value)
        start, token, rows, errors = (t.numpy() for t in (entries.start, entries.token, W_dec, r))
        kernels.in_threads(
            kernels.gradient_of_z, len(W_dec), start, token, rows, errors,
            errors.dtype.type(l1), dz.numpy(), b_enc.numpy(),
        )  # fmt: skip
        return dz, b_enc
    # What PyTorch calls for the weights' gradient of `weighted_sums`: W_dec[feature] · r[token].
    dot_products = torch.ops.aten._embedding_bag_per_sample_weights_backward
    dz = dot_products(r, W_dec, entries.feature, entries.start, entries.token, 0).add_(l1)
    return dz, b_enc.index_add_(0, entries.feature, dz)


def _starts(sizes: Int[Tensor, " n"]) -> Int[Tensor, " n_plus_1"]:
    return functional.pad(sizes.cumsum(0), (1, 0))


def weighted_sums(rows: Tensor, index: Tensor, start: Tensor, weight: Tensor) -> Tensor:
    """For each group i: the sum of weight[j] · rows[index[j]] over start[i] ≤ j < start[i + 1]."""
    return functional.embedding_bag(
        index, rows, start, mode="sum", per_sample_weights=weight, include_last_offset=True
    )


def chunk_size(width: int, tensor: Tensor) -> int:
    """How many rows of ``width`` numbers to make at a time."""
    return max(CHUNK_ENTRIES[tensor.device.type] // width, 1)


def _is_compiled(tensor: Tensor) -> bool:
    """Whether the compiled loops apply; elsewhere PyTorch does the same."""
    return tensor.device.type == "cpu"
