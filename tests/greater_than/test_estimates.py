"""Curves, their intervals and areas, and bad units, all on units whose effects are known."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from transcoders.greater_than import estimates
from transcoders.greater_than.units import ChosenMLP


class KnownUnits(ChosenMLP):
    """The metric is a sum of what the kept units add, for every prompt."""

    def __init__(self, effects, ranking):
        self.effects, self._ranking = torch.tensor(effects), torch.tensor(ranking)
        self.asked: list[list[int]] = []

    def ranking(self, kind):
        assert kind == "transcoder"
        return self._ranking

    def metrics(self, kind="neurons", kept=None):
        assert kind == "transcoder"
        self.asked.append(kept.tolist())
        return self.effects[kept].sum().expand(2, 100)


def made_up(heights):
    """Of the same height for every prompt."""
    return {n_kept: torch.full((2, 100), height) for n_kept, height in heights.items()}


def test_a_curve_is_measured_at_the_numbers_asked_for_along_the_ranking():
    mlp = KnownUnits([0.1, 0.2, 0.4, 0.8], [2, 0, 3, 1])
    found = mlp.curve("transcoder", [0, 1, 3, 4])
    assert mlp.asked == [[], [2], [2, 0, 3], [2, 0, 3, 1]]
    heights = {n_kept: values.mean().item() for n_kept, values in found.items()}
    assert heights == pytest.approx({0: 0, 1: 0.4, 3: 1.3, 4: 1.5})
    mlp.curve("transcoder", [1, 2, 3], without=0)
    assert mlp.asked[4:] == [[2], [2, 3], [2, 3, 1]]


@given(st.integers(0, 2**31))
@settings(max_examples=20)
def test_estimates_are_over_templates_and_all_years_but_the_first_and_last(seed):
    values = torch.randn(3, 100, generator=torch.Generator().manual_seed(seed))
    expected = sum(x for row in values.tolist() for x in row[1:99]) / (3 * 98)
    values[:, [0, 99]] = torch.nan
    found = estimates.over_years(values, seed=0)
    assert found.value == pytest.approx(expected, abs=1e-6)
    assert found.low < found.value < found.high
    assert (found.n, found.resampled) == (10, "decades")
    # The width for a mean of 3 x 98 standard normal numbers; ten decades tell it only roughly.
    assert 0.3 < (found.high - found.low) / (2 * 2.26 / (3 * 98) ** 0.5) < 2.2


def test_all_templates_of_a_year_are_drawn_together():
    # Opposite templates cancel in every draw of years, and would not if drawn alone.
    values = torch.randn(1, 100, generator=torch.Generator().manual_seed(5))
    found = estimates.over_years(torch.cat([values, -values]), seed=0)
    assert found[:3] == pytest.approx([0] * 3, abs=1e-7)


def test_a_bad_unit_is_found_wherever_it_is():
    for place in (0, 4):
        heights = np.cumsum([0.0, *(-0.1 if unit == place else 0.1 for unit in range(5))])
        drops = estimates.drops_of(made_up(dict(enumerate(heights))))
        found, drop = estimates.most_harmful(drops, seed=0)
        assert found == place and drop[:3] == pytest.approx([0.1] * 3)


def test_harm_is_tested_on_years_and_templates_that_did_not_choose_the_unit():
    # Unit 1 does harm in the first template only, by which it is chosen.
    drops = np.zeros((3, 2, 98))
    drops[1, 0] = 0.5
    unit, drop = estimates.most_harmful(drops, seed=0)
    assert unit == 1 and drop[:3] == (0, 0, 0)
    assert drop.n == 5
    drops[1, 1] = 0.2
    assert estimates.most_harmful(drops, seed=0)[1][:3] == pytest.approx([0.2] * 3)


def test_a_lead_is_over_the_best_of_all_others():
    losses = np.zeros((4, 98))
    losses[2], losses[0] = 0.3, 0.2
    ahead, behind = estimates.lead_of(losses, 2, seed=0), estimates.lead_of(losses, 0, seed=0)
    assert ahead == pytest.approx(0.1)
    assert estimates.joint_lead([ahead, behind])[:3] == pytest.approx([-0.1] * 3)
    # Each resample counts the smaller of its own leads, so the two together are less sure of it.
    one, other = np.random.default_rng(0).normal(size=(2, 2000))
    alone = [estimates.joint_lead([lead]).low for lead in (one, other)]
    assert estimates.joint_lead([one, other]).low < min(alone)
    # Two others that are ahead in half of the decades each: in every resample one of them is.
    losses[0, :49], losses[0, 49:], losses[1, :49], losses[1, 49:] = 0.6, 0.0, 0.0, 0.6
    assert estimates.joint_lead([estimates.lead_of(losses, 2, seed=0)]).high < 0.01


def test_only_few_units_count_and_they_count_alike():
    # 0.1 above for up to 23 units, which are joined by straight lines; far below afterwards.
    first = made_up({0: 9.0, 1: 0.1, 4: 0.4, 23: 2.3, 24: -5.0, 100: -5.0})
    second = made_up({0: 0.0, 1: 0.0, 10: 0.9, 30: 2.9, 100: 3.0})
    assert estimates.few_above(first, second, seed=0)[:3] == pytest.approx([0.1] * 3, abs=1e-6)
    short = {n_kept: values for n_kept, values in first.items() if n_kept <= 4}
    assert estimates.few_above(short, second, seed=0).value == pytest.approx(0.1, abs=1e-6)


def test_what_features_share_is_not_taken_for_their_own():
    assert estimates.own_above_others(np.ones((20, 20)), seed=0)[:3] == pytest.approx([0, 0, 0])
    found = estimates.own_above_others(np.eye(20), seed=0)
    assert found.value == pytest.approx(1) and found.low > 0.8
    # Some features have large values with all weights: nothing of that is a feature's own.
    rows = np.arange(20.0)[:, None] * np.ones((20, 20))
    assert estimates.own_above_others(rows, seed=0)[:3] == pytest.approx([0, 0, 0], abs=1e-9)
    assert estimates.own_above_others(rows + np.eye(20), seed=0).value == pytest.approx(1)


KEPT = (0, 1, 2, 4, 8)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((0.9, 0.1, 0.2, 0.3, 0.4), (0.0, 0.2, 0.3, 0.4, 0.5), 1),  # only with none: never ahead
        ((0.0, 0.2, 0.3, 0.4, 0.5), (0.0, 0.1, 0.2, 0.3, 0.4), np.inf),  # ahead to the end
        ((0.0, 0.3, 0.3, 0.4, 0.4), (0.0, 0.1, 0.3, 0.3, 0.3), 2),  # overtaken again later
        # From 4 to 8: 0.4 + 0.05 (k - 4) and 0.2 + 0.15 (k - 4), equal at 6.
        ((0.0, 0.4, 0.4, 0.4, 0.6), (0.0, 0.1, 0.2, 0.2 + 1e-6, 0.8), 6),
    ],
)
def test_when_the_second_curve_catches_up(first, second, expected):
    one, other = (made_up(dict(zip(KEPT, heights, strict=True))) for heights in (first, second))
    assert estimates.catch_up(one, other, seed=0)[:3] == (expected,) * 3
