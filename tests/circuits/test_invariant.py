"""Weights alone: the best of every row are those of the dense product."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers_circuits import MIXES, assert_close, centred, make_circuit, plain
from transcoders.circuits import invariant
from transcoders.circuits.invariant import (
    best_products,
    connections,
    de_embeddings,
    direct_logits,
)


@pytest.fixture(scope="module")
def replacement(tiny_model, random_dictionary):
    return make_circuit(tiny_model, random_dictionary, MIXES["layers 0 and 2"], first=0)


@pytest.fixture(scope="module")
def vectors():
    return torch.randn(5, 32, generator=torch.Generator().manual_seed(1))


def assert_best(found, dense, k, *, largest=True):
    """Compare with the best of a dense product."""
    expected = dense.topk(k, dim=1, largest=largest)
    assert_close(found.values, expected.values)
    assert torch.equal(found.indices, expected.indices)


@given(
    n_vectors=st.integers(1, 6), n_rows=st.integers(1, 6), k=st.integers(1, 8),
    block_entries=st.integers(1, 40),
)  # fmt: skip
def test_any_shape_gives_the_best_of_the_whole(n_vectors, n_rows, k, block_entries):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(invariant, "BLOCK_ENTRIES", block_entries)
        generator = torch.Generator().manual_seed(n_vectors + 10 * n_rows)
        vectors = torch.randn(n_vectors, 3, generator=generator)
        rows = torch.randn(n_rows, 3, generator=generator)
        assert_best(best_products(vectors, rows, k), vectors @ rows.T, min(k, n_rows))


def test_de_embeddings_are_products_with_all_embeddings(replacement, vectors):
    hf, _, final_norm = plain(replacement.model)
    # As the norm before does.
    embedding = centred(final_norm, hf.get_input_embeddings().weight)
    for largest in (True, False):
        found = de_embeddings(replacement, vectors, 4, largest=largest)
        assert_best(found, vectors @ embedding.T, 4, largest=largest)


def test_direct_logits_are_how_logits_move(replacement, vectors):
    hf, _, final_norm = plain(replacement.model)
    written = centred(final_norm, vectors) * final_norm.weight
    dense = written @ hf.get_output_embeddings().weight.T
    for largest in (True, False):
        found = direct_logits(replacement, vectors, 4, largest=largest)
        assert_best(found, dense, 4, largest=largest)


@pytest.mark.parametrize("head", [None, (1, 0), (2, 1)])
def test_connections_are_products_of_decoders_and_encoders(replacement, head):
    largest = head != (2, 1)
    features = torch.tensor([3, 60, 17])
    encoders = replacement.transcoders[2].W_enc[:, features].T
    _, blocks, final_norm = plain(replacement.model)
    written = centred(final_norm, replacement.transcoders[0].W_dec)
    if head is not None:
        block = blocks[head[0]]
        written = written * block.norm_1.weight @ block.W_V[head[1]] @ block.W_O[head[1]]
        written = centred(final_norm, written)
    found = connections(replacement, 0, 2, features, 6, head=head, largest=largest)
    assert_best(found, encoders @ written.T, 6, largest=largest)
