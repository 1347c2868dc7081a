"""Where chosen features are active is what the dictionaries give on every token of the text."""

import pandas as pd
import pytest
import torch

from transcoders.interpretability.activity import gather_activity, load_activity, observed_of
from transcoders.interpretability.gather import load_observed
from transcoders.models import mlp_activations

CHOSEN = {"early": [3, 8], "late": [], "sae": [0, 5, 6]}


@pytest.fixture(scope="module")
def activity(model, rows, dictionaries, tmp_path_factory):
    folder = tmp_path_factory.mktemp("activity") / "m"
    placed = {name: dictionaries[name] for name in CHOSEN}
    gather_activity(model, rows, placed, CHOSEN, folder, first_position=1, batch_contexts=7)
    return load_activity(folder)


def test_activations_are_those_of_the_chosen_features(activity, model, rows, dictionaries):
    assert activity.chosen == CHOSEN
    assert torch.equal(activity.text.tokens, rows.tokens)
    for name, units in CHOSEN.items():
        site, dictionary = dictionaries[name]
        read = mlp_activations(model, rows.tokens, [site.layer])[site.layer].mlp_in
        z = dictionary.encode(read)[:, :, units].permute(2, 0, 1).numpy().copy()
        z[:, :, :1] = 0
        assert activity.of(name) == pytest.approx(z, abs=1e-5)
    assert set(activity.active["dictionary"]) == {"early", "sae"}


def test_what_pages_show_of_them_is_what_the_pass_over_all_features_found(
    activity, gathered, scale
):
    units = CHOSEN["sae"]
    few = observed_of(activity.of("sae"), units, scale.interpretability, first_position=1, seed=3)
    everything = load_observed(gathered, "sae")
    expected = everything.features[everything.features["feature"].isin(units)]
    for column in ("feature", "n_active", "frequency", "mean", "largest"):
        assert few.features[column].to_numpy() == pytest.approx(expected[column].to_numpy())
    found = few.examples.query("kind == 'top'").reset_index(drop=True)
    top = everything.examples.query("kind == 'top' and feature in @units").reset_index(drop=True)
    pd.testing.assert_frame_equal(found, top, check_dtype=False, atol=1e-5)
