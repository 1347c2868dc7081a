"""Every way to the gradients of a batch gives those of the paper's formula."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers_gradients import WAYS, distance, plain_loss, problem, problems
from helpers_training import ALL_KINDS, ONE_OF_EACH
from transcoders.config import TRAITS
from transcoders.dictionaries.entries import CHUNK_ENTRIES

ALL_WAYS = pytest.mark.parametrize("way", WAYS)
OF_ALL_KINDS = pytest.mark.parametrize("kind", ALL_KINDS)
ONE_OF_EACH_TRAIT = pytest.mark.parametrize("kind", ONE_OF_EACH)


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
