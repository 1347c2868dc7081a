"""One pass over held-out text for all dictionaries, and what is read back from it."""

import pytest
import torch

from helpers_circuits import plain, watched, without_weight
from transcoders.interpretability.gather import load_observed, load_text, random_directions


def activations(model, rows, site, dictionary):
    """Of all rows at once, BOS included."""
    block = plain(model).blocks[site.layer]
    with watched([block.norm_2, block.mlp]) as seen:
        plain(model).hf(rows.tokens, use_cache=False)
    if dictionary.traits.reads == "mlp_out":
        return dictionary.encode(seen[block.mlp][1])
    return dictionary.encode(without_weight(block.norm_2, seen[block.norm_2][0]))


@pytest.mark.parametrize("name", ["early", "late", "sae", "out"])
def test_every_dictionary_is_observed_at_its_own_site(
    gathered, scale, model, rows, dictionaries, name
):
    z = activations(model, rows, *dictionaries[name])
    observed, text = load_observed(gathered, name), load_text(gathered)
    assert torch.equal(text.rows, rows.tokens)
    # The plain model rounds elsewhere, which moves activations by 1e-5 and some across 0.
    difference = observed.features["n_active"] - (z[:, 1:] > 0).sum(dim=(0, 1)).numpy()
    assert abs(difference).max() <= 1
    for example in observed.examples.sample(40, random_state=0).itertuples():
        assert example.position >= 1
        peak = z[example.row, 1:, example.feature].max().item()
        assert example.activation == pytest.approx(peak, rel=1e-4, abs=1e-5)
        at = z[example.row, example.position, example.feature].item()
        assert at == pytest.approx(peak, rel=1e-4, abs=1e-5)
    # Background tokens are distinct and never BOS.
    assert len(text.background.unique(dim=0)) == scale.interpretability.background_tokens
    row, position = text.background.T
    assert (position >= 1).all()
    in_float16 = {"rtol": 2e-3, "atol": 2e-3}
    torch.testing.assert_close(observed.background, z[row, position], **in_float16)


def test_random_directions_are_as_rare_as_asked(random_dictionary):
    generator = torch.Generator().manual_seed(0)
    mlp_in = torch.randn(4000, 32, generator=generator)
    like = random_dictionary("transcoder")
    directions = random_directions(like, torch.tensor([0.0, 0.01, 0.2]), mlp_in, 200, seed=1)
    torch.testing.assert_close(directions.W_enc.norm(dim=0), torch.ones(200))
    found = (directions.encode(mlp_in) > 0).float().mean(dim=0)
    near = [(found - wanted).abs() < 5e-4 for wanted in (0.01, 0.2)]
    assert (near[0] | near[1]).all() and near[0].any() and near[1].any()
    silent = random_directions(like, torch.zeros(64), mlp_in, 16, seed=0)
    assert not silent.encode(mlp_in).any()
