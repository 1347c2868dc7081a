"""A dictionary stands exactly where its kind says, and nowhere else."""

import pytest
import torch

from transcoders.config import TRAITS
from transcoders.models import (
    mlp_out_for,
    run_through_site,
)
from transcoders.splicing import splice

LAYER = 1


@pytest.fixture(scope="module")
def passed(tiny_model, random_tokens):
    return run_through_site(tiny_model, random_tokens(3, 12), LAYER)


@pytest.mark.parametrize("kind", TRAITS)
@pytest.mark.parametrize("first", [1, 3])
def test_positions_before_the_first_keep_every_bit_and_the_others_do_not(
    tiny_model, passed, random_dictionary, *, kind, first
):
    dictionary = random_dictionary(kind)
    spliced = splice(dictionary, passed, tiny_model, LAYER, first_position=first)
    own = passed.activations.mlp_out
    assert torch.equal(spliced.mlp_out[:, :first], own[:, :first])
    assert (spliced.mlp_out[:, first:] != own[:, first:]).any(dim=-1).all()


@pytest.mark.parametrize("kind", [kind for kind in TRAITS if kind != "mlp_in_sae"])
def test_a_dictionary_gives_the_output_to_continue_with(
    tiny_model, passed, random_dictionary, kind
):
    dictionary = random_dictionary(kind)
    spliced = splice(dictionary, passed, tiny_model, LAYER, first_position=1)
    mlp_in, mlp_out = (tensor[:, 1:] for tensor in passed.activations)
    source = mlp_in if dictionary.traits.is_transcoder else mlp_out
    assert torch.equal(spliced.z, dictionary.encode(source))
    assert torch.equal(spliced.mlp_out[:, 1:], dictionary(source, mlp_in))
    assert torch.equal(spliced.target, mlp_out)


def test_an_sae_on_the_input_feeds_the_mlp_with_its_reconstruction(
    tiny_model, passed, random_dictionary
):
    sae = random_dictionary("mlp_in_sae")
    spliced = splice(sae, passed, tiny_model, LAYER, first_position=1)
    target = passed.activations.mlp_in[:, 1:]
    reconstruction = sae.decode(sae.encode(target))
    assert torch.equal(spliced.target, target)
    assert torch.equal(spliced.reconstruction, reconstruction)
    read = torch.cat([passed.activations.mlp_in[:, :1], reconstruction], dim=1)
    written = mlp_out_for(tiny_model, passed, LAYER, read)
    assert torch.equal(spliced.mlp_out[:, 1:], written[:, 1:])
