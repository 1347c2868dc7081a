"""Weights alone: the best of every row are those of the dense product."""

import pytest
import torch

from helpers_circuits import assert_close, centred, plain
from transcoders.circuits import invariant
from transcoders.circuits.invariant import best_products, connections, de_embeddings, direct_logits


@pytest.fixture
def replacement(mixed):
    return mixed.replacement


def assert_best(found, dense, k, *, largest=True):
    """Compare with the best of a dense product."""
    expected = dense.topk(k, dim=1, largest=largest)
    assert_close(found.values, expected.values)
    assert torch.equal(found.indices, expected.indices)


@pytest.mark.parametrize("n_rows", [1, 6, 7])
@pytest.mark.parametrize("block_entries", [1, 8, 40])
def test_any_shape_gives_the_best_of_the_whole(n_rows, block_entries, monkeypatch):
    monkeypatch.setattr(invariant, "BLOCK_ENTRIES", block_entries)
    generator = torch.Generator().manual_seed(n_rows)
    vectors, rows = (torch.randn(n, 3, generator=generator) for n in (4, n_rows))
    for k in (1, 3, 8):
        assert_best(best_products(vectors, rows, k), vectors @ rows.T, min(k, n_rows))


@pytest.mark.parametrize("largest", [True, False])
def test_de_embeddings_and_direct_logits_are_dense_products(replacement, largest):
    vectors = torch.randn(5, 32, generator=torch.Generator().manual_seed(1))
    hf, _, final_norm = plain(replacement.model)
    embedding = centred(final_norm, hf.get_input_embeddings().weight)  # as the norm before does
    found = de_embeddings(replacement, vectors, 4, largest=largest)
    assert_best(found, vectors @ embedding.T, 4, largest=largest)
    written = centred(final_norm, vectors) * final_norm.weight
    found = direct_logits(replacement, vectors, 4, largest=largest)
    dense = written @ hf.get_output_embeddings().weight.T
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
