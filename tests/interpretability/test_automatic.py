"""Automatic measures on features whose meaning is known, because it was made up."""

import numpy as np
import pandas as pd
import pytest
import torch

from transcoders.interpretability import automatic
from transcoders.interpretability.automatic import live_features, measure_features
from transcoders.interpretability.gather import Observed, Text

N_BACKGROUND = 300
TOKEN, BEFORE = 5, 9
ON_TOKEN, AFTER_BEFORE, AT_RANDOM, RARE, FEW = range(5)


@pytest.fixture(scope="module")
def text():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(10, 200, (400, 20), generator=generator)
    rows[::2, 7] = TOKEN
    rows[1::2, 11] = BEFORE
    row = torch.randint(400, (N_BACKGROUND,), generator=generator)
    position = torch.randint(1, 20, (N_BACKGROUND,), generator=generator)
    return Text(rows, torch.stack([row, position], dim=1))


@pytest.fixture(scope="module")
def observed(text):
    """Features active on one token, two positions after one, at random, too rarely."""
    random = np.random.default_rng(0)
    places = {
        ON_TOKEN: [(row, 7) for row in range(0, 80, 2)],
        AFTER_BEFORE: [(row, 13) for row in range(1, 81, 2)],
        AT_RANDOM: [(row, int(random.integers(1, 20))) for row in random.permutation(400)[:40]],
        RARE: [(row, 3) for row in range(40)],
        FEW: [(row, 3) for row in range(3)],
    }
    rows = [
        {"feature": feature, "kind": kind, "rank": rank, "row": row, "position": position,
         "activation": 10.0 - rank / 10}
        for feature, chosen in places.items()
        for kind, part in (("top", chosen[:12]), ("sampled", chosen[6:30]))
        for rank, (row, position) in enumerate(part, start=1)
    ]  # fmt: skip
    background = torch.zeros(N_BACKGROUND, 5)
    here = text.rows[text.background[:, 0], text.background[:, 1]]
    background[here == TOKEN, ON_TOKEN] = 1.0
    features = pd.DataFrame({"feature": range(5), "frequency": [0.01, 0.01, 0.01, 5e-5, 0.01]})
    return Observed(features, pd.DataFrame(rows), background)


def test_measures_tell_features_of_known_meaning_apart(observed, text):
    """Only live features are measured: they are frequent and have four examples."""
    table = measure_features(observed, text, seed=1)
    measures = table.pivot(index="feature", columns="measure", values="value")
    live = [ON_TOKEN, AFTER_BEFORE, AT_RANDOM]
    assert live_features(observed)["feature"].tolist() == measures.index.tolist() == live
    assert measures.loc[ON_TOKEN, ["single_token_share", "token_entropy"]].tolist() == [1, 0]
    assert measures.loc[AFTER_BEFORE, "single_token_share"] < 0.3
    assert measures.loc[AFTER_BEFORE, "token_entropy"] > 2.5
    assert (measures.loc[[ON_TOKEN, AFTER_BEFORE], "rule_accuracy"] > 0.95).all()
    assert measures.loc[AT_RANDOM, "rule_accuracy"] == pytest.approx(0.5, abs=0.15)


def test_a_feature_that_is_never_silent_has_no_rule(observed, text):
    background = observed.background.clone()
    background[:, AFTER_BEFORE] = 1.0
    background[1:, AT_RANDOM] = 1.0
    table = measure_features(observed._replace(background=background), text, seed=1)
    ruled = table[table["measure"] == "rule_accuracy"]["feature"]
    assert list(ruled) == [ON_TOKEN]  # the others have nothing, or one place, to be told from


def test_entropy_and_share_worked_by_hand(observed, text):
    rows = text.rows.clone()
    rows[:4, 3] = torch.tensor([50, 50, 51, 52])
    own = observed.examples.query(f"feature == {RARE} and kind == 'top'").head(4)
    common = observed._replace(features=observed.features.assign(frequency=0.1), examples=own)
    found = measure_features(common, Text(rows, text.background), seed=0)
    found = found.set_index("measure")["value"]
    assert (found["single_token_share"], found["token_entropy"]) == (0.5, pytest.approx(1.5))
    assert "rule_accuracy" not in found  # four examples are too few to halve


def test_windows_stop_at_the_ends_of_rows():
    text = np.arange(1, 11).reshape(1, 10)
    found, beyond = automatic.windows(text, np.array([[0, 0], [0, 9]])), [automatic.OUTSIDE] * 3
    assert found.tolist() == [[*beyond, 1, 2, 3, 4], [7, 8, 9, 10, *beyond]]


def test_summaries_are_means_with_intervals_and_leave_out_what_is_no_measure():
    values = np.arange(1.0, 101.0)
    table = pd.DataFrame({"dictionary": "d", "measure": "token_entropy", "value": values})
    both = pd.concat([table, table.assign(measure="frequency")])
    found = automatic.summarise(both, seed=0).squeeze()
    assert (found["measure"], found["mean"], found["n_features"]) == ("token_entropy", 50.5, 100)
    half = 1.96 * values.std(ddof=1) / 10
    assert found["high"] - found["mean"] == pytest.approx(half, rel=0.1)
