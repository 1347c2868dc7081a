"""Every way to the gradients of a batch gives those of the paper's formula, in little memory."""

import weakref

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from helpers_gradients import WAYS, distance, plain_loss, problem, problems
from helpers_training import ALL_KINDS
from transcoders.config import TRAITS
from transcoders.dictionaries.entries import CHUNK_ENTRIES

ALL_WAYS = pytest.mark.parametrize("way", WAYS)
OF_ALL_KINDS = pytest.mark.parametrize("kind", ALL_KINDS)
ONE_OF_EACH_TRAIT = pytest.mark.parametrize(
    "kind", ["transcoder", "mlp_in_sae", "topk_sae", "skip_sae"]
)


@ALL_WAYS
@given(p=problems(), chunk=st.sampled_from([1, 7, 50, 2**22]))
def test_gradients_are_those_of_the_formula(way, p, chunk):
    loss = plain_loss(p)
    loss.backward()
    expected = {name: parameter.grad for name, parameter in p.dictionary.named_parameters()}
    p.dictionary.requires_grad_(False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(CHUNK_ENTRIES, "cpu", chunk)  # more than one chunk, down to one row each
        found, gradients = p.loss(way), p.gradients(way)
    # Everything is in float64, so 1e-10 leaves room for sums that cancel to a millionth.
    assert abs(found.loss - loss) <= 1e-10 * loss
    assert gradients.keys() == expected.keys()
    for name, gradient in expected.items():
        error = (gradients[name] - gradient).abs().max()
        assert error <= 1e-10 * gradient.abs().max(), name
    assert torch.equal(found.active, (p.z() > 0).sum(dim=0))
    squared_error = (p.y - p.dictionary(p.x, p.mlp_in)).square().sum()
    assert abs(found.squared_error - squared_error) <= 1e-10 * squared_error


@pytest.mark.parametrize("density", [0, 0.02, 0.2, 1])
@OF_ALL_KINDS
def test_sparse_equals_dense_up_to_rounding(kind, density):
    # Exact fractions of few digits: pre-activations have no rounding, so that all ways see the
    # same features active however their sums are ordered.
    p = problem(kind, density)
    for name in ("W_enc", "b_enc", "b_dec"):
        getattr(p.dictionary, name).data.mul_(64).round_().div_(64)
    p.x.mul_(64).round_().div_(64)
    if TRAITS[kind].is_topk:  # ... and no two features are equal
        p.dictionary.b_enc.data += torch.arange(80) / 2**14
    dense, *others = (p.gradients(way) for way in WAYS)
    for sparse in others:
        for name, expected in dense.items():
            # float32 sums of up to 80 terms that partly cancel
            assert distance(sparse[name], expected) < 5e-6, name
    if density == 0:  # biases and the skip move, and nothing else
        moved = {name for name, gradient in dense.items() if gradient.any()}
        assert moved == {"b_dec"} | ({"W_skip"} & set(dense))


@ALL_WAYS
@ONE_OF_EACH_TRAIT
@pytest.mark.parametrize("where", ["a token", "a feature"])
def test_what_is_not_a_number_reaches_the_loss(way, kind, where):
    p = problem(kind, 0.2)
    (p.x[3] if where == "a token" else p.dictionary.W_enc.data[:, 5]).fill_(float("nan"))
    assert p.loss(way).loss.isnan()


class LiveBytes(TorchDispatchMode):
    """Adds up the memory of all tensors that operations have made and that are still there."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        for leaf in tree_leaves((args, kwargs)):  # views of what was there before are no news
            if isinstance(leaf, Tensor):
                self._known.add(leaf.untyped_storage()._cdata)
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else [made]:
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return made

    def _count(self, storage):
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key, size):
        self._known.discard(key)
        self.now -= size


@pytest.mark.parametrize("way", WAYS[1:])
@ONE_OF_EACH_TRAIT
def test_the_sparse_way_never_holds_all_features_of_a_batch(kind, way, monkeypatch):
    monkeypatch.setitem(CHUNK_ENTRIES, "cpu", 1024)
    p = problem(kind, 0.02, n_tokens=256, d_in=4, d_out=4, n_features=512)
    p.dictionary.k = 8 if TRAITS[kind].is_topk else None
    with LiveBytes() as live:
        p.gradients(way)
    assert live.peak < 256 * 512 * 4 / 2
