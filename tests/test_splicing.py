"""A dictionary stands exactly where its kind says, and nowhere else."""

import pytest
import torch

from transcoders.config import TRAITS
from transcoders.models import mlp_out_for, run_through_site
from transcoders.splicing import splice

LAYER = 1


@pytest.fixture(scope="module")
def passed(tiny_model, random_tokens):
    return run_through_site(tiny_model, random_tokens(3, 12), LAYER)


@pytest.mark.parametrize("kind", TRAITS)
@pytest.mark.parametrize("first", [1, 3])
def test_a_dictionary_reads_and_replaces_what_its_kind_says_from_the_first_position_on(
    tiny_model, passed, random_dictionary, *, kind, first
):
    dictionary = random_dictionary(kind)
    spliced = splice(dictionary, passed, tiny_model, LAYER, first_position=first)
    mlp_in, mlp_out = passed.activations
    source = mlp_in if dictionary.traits.is_transcoder or kind == "mlp_in_sae" else mlp_out
    assert torch.equal(spliced.z, dictionary.encode(source[:, first:]))
    expected = dictionary(source[:, first:], mlp_in[:, first:])
    assert torch.equal(spliced.reconstruction, expected)
    if kind == "mlp_in_sae":  # the MLP runs on the reconstruction
        read = torch.cat([mlp_in[:, :first], expected], dim=1)
        expected = mlp_out_for(tiny_model, passed, LAYER, read)[:, first:]
    assert torch.equal(spliced.target, (mlp_in if kind == "mlp_in_sae" else mlp_out)[:, first:])
    assert torch.equal(spliced.mlp_out[:, :first], mlp_out[:, :first])
    assert torch.equal(spliced.mlp_out[:, first:], expected)
    assert (expected != mlp_out[:, first:]).any(dim=-1).all()
