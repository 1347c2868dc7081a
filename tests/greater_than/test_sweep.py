"""Curves, their intervals and areas, and bad units, all on units whose effects are known."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from transcoders.greater_than.sweep import (
    BadFeature,
    Curve,
    Estimate,
    Resampler,
    catch_up,
    curve_table,
    find_bad_feature,
    interval,
    mean_height,
    sweep,
    without,
)

RESAMPLER = Resampler(0, resamples=200)


class KnownUnits:
    """In a chosen MLP's place: the metric is a sum of what the kept units add, for every prompt."""

    def __init__(self, effects: list[float], ranking: list[int], noise: float = 0.0) -> None:
        generator = torch.Generator().manual_seed(0)
        self.effects = torch.tensor(effects)[:, None, None].expand(-1, 2, 100)
        self.effects = self.effects + noise * torch.randn(len(effects), 2, 100, generator=generator)
        self._ranking = torch.tensor(ranking)
        self.asked: list[tuple[str, list[int]]] = []

    def ranking(self, kind: str) -> Tensor:
        assert kind == "transcoder"
        return self._ranking

    def with_kept(self, kind: str, kept: Tensor) -> Tensor:
        self.asked.append((kind, kept.tolist()))
        return self.effects[kept].sum(dim=0)


def known(effects: list[float], ranking: list[int], noise: float = 0.0) -> Any:
    return KnownUnits(effects, ranking, noise)


def flat(value: float) -> Tensor:
    return torch.full((2, 100), value)


def curve(heights: dict[int, float]) -> Curve:
    """Of the same height for every prompt."""
    values = {n_kept: flat(height) for n_kept, height in heights.items()}
    return Curve("made up", "transcoder", torch.arange(50), values)


def random_values(seed: int, templates: int = 3) -> Tensor:
    return torch.randn(templates, 100, generator=torch.Generator().manual_seed(seed))


def test_a_curve_is_measured_at_the_numbers_asked_for_along_the_ranking() -> None:
    mlp = known([0.1, 0.2, 0.4, 0.8], [2, 0, 3, 1])
    found = sweep(mlp, "transcoder", [0, 1, 3, 4])
    assert (found.name, found.kind) == ("transcoder", "transcoder")
    assert found.kept == [0, 1, 3, 4]
    assert [kept for _, kept in mlp.asked] == [[], [2], [2, 0, 3], [2, 0, 3, 1]]
    heights = [found.values[n_kept].mean().item() for n_kept in found.kept]
    assert heights == pytest.approx([0, 0.4, 1.3, 1.5])


def test_a_point_is_measured_once_and_put_in_its_place() -> None:
    mlp = known([0.1, 0.2, 0.4, 0.8], [2, 0, 3, 1])
    found = sweep(mlp, "transcoder", [1, 4])
    found.measure(mlp, 4)
    assert len(mlp.asked) == 2
    found.measure(mlp, 2)
    assert found.kept == [1, 2, 4]
    assert found.values[2].mean().item() == pytest.approx(0.5)


def test_without_a_unit_the_others_keep_their_order() -> None:
    mlp = known([0.1, 0.2, 0.4, 0.8], [2, 0, 3, 1])
    whole = sweep(mlp, "transcoder", [0, 4])
    mlp.asked.clear()
    found = without(mlp, whole, 0, [0, 1, 2, 3])
    assert mlp.asked == [("transcoder", kept) for kept in ([], [2], [2, 3], [2, 3, 1])]
    assert found.name == "transcoder_without_bad"
    assert (found.kind, found.kept) == ("transcoder", [0, 1, 2, 3])
    assert whole.ranking.tolist() == [2, 0, 3, 1]


@given(st.integers(0, 2**31))
def test_the_mean_is_over_templates_and_years_but_the_first_and_last(seed: int) -> None:
    values = random_values(seed)
    rows = values.tolist()
    expected = sum(x for row in rows for x in row[1:99]) / (3 * 98)
    assert RESAMPLER.mean(values) == pytest.approx(expected, abs=1e-6)
    values[:, [0, 99]] = torch.nan
    assert RESAMPLER.mean(values) == pytest.approx(expected, abs=1e-6)


@given(st.integers(0, 2**31))
def test_estimates_hold_their_value_and_shrink_with_the_spread(seed: int) -> None:
    values = random_values(seed)
    found = RESAMPLER.estimate(values)
    assert found.value == RESAMPLER.mean(values)
    assert found.low < found.value < found.high
    # Of the mean of 3 x 98 standard normal numbers.
    assert 0.5 < (found.high - found.low) / (2 * 1.96 / (3 * 98) ** 0.5) < 1.6
    moved = RESAMPLER.estimate(10 + values / 100)
    assert moved == pytest.approx([10 + x / 100 for x in found], abs=1e-6)


@given(st.floats(-1, 1, width=32))
def test_what_does_not_differ_between_years_has_an_interval_of_one_number(value: float) -> None:
    assert RESAMPLER.estimate(flat(value)) == pytest.approx([value] * 3, abs=1e-12)
    # Years are resampled, not templates.
    by_template = torch.tensor([[value], [1.0]]).expand(-1, 100)
    middle = (value + 1) / 2
    assert RESAMPLER.estimate(by_template) == pytest.approx([middle] * 3, abs=1e-6)


def test_all_templates_of_a_year_are_drawn_together() -> None:
    # Opposite templates cancel in every draw of years, and would not if drawn alone.
    values = random_values(5, templates=1)
    found = RESAMPLER.estimate(torch.cat([values, -values]))
    assert found == pytest.approx([0, 0, 0], abs=1e-7)


def test_intervals_are_percentiles_of_the_resamples() -> None:
    statistic = np.array([7.0, *np.arange(1001.0)])  # of the data, then of resamples
    assert interval(statistic) == Estimate(7, 25, 975)
    statistic[1:100] = np.inf
    assert interval(statistic).high == np.inf
    assert interval(np.array([np.inf, *[3.0] * 99])) == Estimate(np.inf, 3, 3)


def test_a_seed_gives_the_same_draws_and_another_gives_others() -> None:
    values = random_values(1)
    assert Resampler(3, 50).estimate(values) == Resampler(3, 50).estimate(values)
    assert Resampler(3, 50).estimate(values) != Resampler(4, 50).estimate(values)


def test_json_has_no_infinity() -> None:
    assert Estimate(1.0, -np.inf, np.inf).record() == {"value": 1.0, "low": None, "high": None}
    bad = BadFeature(5, 2, Estimate(0.5, 0.25, np.inf))
    drop = {"value": 0.5, "low": 0.25, "high": None}
    assert bad.record() == {"unit": 5, "rank": 2, "drop": drop}


def test_a_bad_unit_is_found_by_what_its_addition_costs() -> None:
    # In the ranking's order: 0.1, 0.3, -0.2, 0.4, -0.05
    mlp = known([0.3, 0.4, 0.1, -0.05, -0.2], [2, 0, 4, 1, 3], noise=0.01)
    found_on = sweep(mlp, "transcoder", [0, 2, 5])
    bad = find_bad_feature(mlp, found_on, RESAMPLER)
    assert bad is not None
    assert (bad.unit, bad.rank) == (4, 3)
    assert bad.drop.value == pytest.approx(0.2, abs=0.01)
    assert 0 < bad.drop.low < bad.drop.value < bad.drop.high
    assert found_on.kept == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_a_bad_unit_is_found_wherever_it_is(rank: int) -> None:
    ranking = [3, 1, 4, 0, 2]
    effects = [0.1] * 5
    effects[ranking[rank - 1]] = -0.1
    mlp = known(effects, ranking)
    bad = find_bad_feature(mlp, sweep(mlp, "transcoder", [0, 5]), RESAMPLER)
    assert bad is not None
    assert (bad.unit, bad.rank) == (ranking[rank - 1], rank)
    assert bad.drop == pytest.approx([0.1, 0.1, 0.1])


def test_a_unit_beyond_the_curves_end_is_not_looked_at() -> None:
    mlp = known([0.1, 0.1, 0.1, -0.5], [0, 1, 2, 3])
    assert find_bad_feature(mlp, sweep(mlp, "transcoder", [0, 3]), RESAMPLER) is None
    assert find_bad_feature(mlp, sweep(mlp, "transcoder", [0, 4]), RESAMPLER) is not None


def test_where_every_unit_helps_none_is_bad() -> None:
    mlp = known([0.3, 0.1, 0.2], [1, 0, 2], noise=0.01)
    assert find_bad_feature(mlp, sweep(mlp, "transcoder", [0, 3]), RESAMPLER) is None


def test_a_drop_that_other_years_might_not_show_is_not_held_against_a_unit() -> None:
    # It costs 0.05 on average, and from 0.7 to 2.7 and back from year to year.
    mlp = known([0.3, -0.05, 0.2], [1, 0, 2], noise=2)
    mlp.effects[1] -= mlp.effects[1, :, 1:99].mean() + 0.05
    mlp.effects[[0, 2]] = 0.5
    on = sweep(mlp, "transcoder", [0, 3])
    assert find_bad_feature(mlp, on, RESAMPLER) is None
    assert RESAMPLER.mean(on.values[0] - on.values[1]) == pytest.approx(0.05, abs=1e-6)
    mlp.effects[1] = -0.05
    assert find_bad_feature(mlp, sweep(mlp, "transcoder", [0, 3]), RESAMPLER) is not None


def test_the_mean_height_of_a_constant_curve_is_the_constant() -> None:
    for kept in ([0, 1], [0, 1, 2, 8, 64], [3, 5, 64]):
        found = mean_height(curve(dict.fromkeys(kept, 0.3)), RESAMPLER)
        assert found.shape == (201,)
        assert found == pytest.approx(0.3)


def test_the_mean_height_weighs_by_width() -> None:
    # Trapezoids: 0.5 wide 1, then 1 wide 1, then 0.75 wide 2.
    heights = {0: 0.0, 1: 1.0, 2: 1.0, 4: 0.5}
    assert mean_height(curve(heights), RESAMPLER)[0] == pytest.approx((0.5 + 1 + 1.5) / 4)
    shifted = {n_kept + 10: height for n_kept, height in heights.items()}
    assert mean_height(curve(shifted), RESAMPLER)[0] == pytest.approx((0.5 + 1 + 1.5) / 4)


def test_the_mean_height_of_resamples_is_that_of_their_curves() -> None:
    values = {n_kept: random_values(n_kept) for n_kept in (0, 2, 3)}
    found = mean_height(Curve("any", "neurons", torch.arange(3), values), RESAMPLER)
    means = [RESAMPLER.means(each) for each in values.values()]
    expected = (means[0] + means[1]) / 2 * 2 + (means[1] + means[2]) / 2
    assert found == pytest.approx(expected / 3)


KEPT = (0, 1, 2, 4, 8)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((0.0, 0.1, 0.2, 0.3, 0.4), (0.0, 0.2, 0.3, 0.4, 0.5), 1),  # never ahead
        ((0.0, 0.2, 0.3, 0.4, 0.5), (0.0, 0.1, 0.2, 0.3, 0.4), np.inf),  # ahead to the end
        ((0.0, 0.2, 0.3, 0.4, 0.5), (0.0, 0.1, 0.2, 0.3, 0.5), 8),  # up to the end
        ((0.9, 0.1, 0.2, 0.3, 0.4), (0.0, 0.1, 0.1, 0.1, 0.1), 1),  # with none ahead: not counted
        ((0.0, 0.3, 0.3, 0.4, 0.4), (0.0, 0.1, 0.3, 0.3, 0.3), 2),  # overtaken again later
        # From 4 to 8: 0.4 + 0.05 (k - 4) and 0.2 + 0.15 (k - 4), equal at 6.
        ((0.0, 0.4, 0.4, 0.4, 0.6), (0.0, 0.1, 0.2, 0.2 - 1e-6, 0.8), 7),
        ((0.0, 0.4, 0.4, 0.4, 0.6), (0.0, 0.1, 0.2, 0.2 + 1e-6, 0.8), 6),
    ],
)
def test_when_the_second_curve_catches_up(
    first: tuple[float, ...], second: tuple[float, ...], expected: float
) -> None:
    one, other = (curve(dict(zip(KEPT, heights, strict=True))) for heights in (first, second))
    found = catch_up(one, other, RESAMPLER)
    assert found.shape == (201,)
    assert found.tolist() == [expected] * 201


def test_curves_measured_at_other_numbers_can_be_compared() -> None:
    first = curve({0: 0.0, 1: 0.5, 3: 0.5, 20: 0.5})
    second = curve({0: 0.0, 10: 1.0})
    assert catch_up(first, second, RESAMPLER)[0] == 5
    assert catch_up(second, first, RESAMPLER)[0] == 1
    # Only as far as both go: nothing is known of the second from 4 on.
    falling, short = curve({0: 0.5, 4: 0.5, 20: 0.0}), curve({0: 0.0, 4: 0.4})
    assert catch_up(falling, short, RESAMPLER)[0] == np.inf


def test_catching_up_differs_between_resamples() -> None:
    generator = torch.Generator().manual_seed(0)
    rising = {n_kept: flat(n_kept / 8) for n_kept in KEPT}
    level = {n_kept: 0.5 + torch.randn(2, 100, generator=generator) for n_kept in KEPT}
    first, second = (Curve("any", "neurons", torch.arange(8), v) for v in (level, rising))
    found = catch_up(first, second, RESAMPLER)
    assert len(set(found.tolist())) > 2
    for number in (0, 1, 7, 200):
        heights = [RESAMPLER.means(values)[number] for values in level.values()]
        at = np.interp(range(1, 9), KEPT, heights)
        behind = [k for k, height in enumerate(at, start=1) if height <= k / 8 + 1e-12]
        assert found[number] == (behind[0] if behind else np.inf)


def test_the_table_has_every_curve_point_and_template() -> None:
    values = {n_kept: random_values(n_kept, templates=2) for n_kept in (0, 3)}
    curves = [
        Curve("transcoder", "transcoder", torch.arange(3), values),
        Curve("neurons", "neurons", torch.arange(3), {1: random_values(9, templates=2)}),
    ]
    table = curve_table(curves, RESAMPLER)
    assert list(table.columns) == ["curve", "kept", "template", "metric", "low", "high"]
    places = list(zip(table["curve"], table["kept"], table["template"], strict=True))
    assert places == [
        (name, n_kept, template)
        for name, n_kept in (("transcoder", 0), ("transcoder", 3), ("neurons", 1))
        for template in ("all", "1", "2")
    ]
    by_template = table.set_index("template")["metric"]
    expected = (by_template["1"].to_numpy() + by_template["2"].to_numpy()) / 2
    assert by_template["all"].tolist() == pytest.approx(expected.tolist())
    for place, found in zip(places, table[["metric", "low", "high"]].to_numpy(), strict=True):
        name, n_kept, template = place
        whole = curves[name == "neurons"].values[n_kept]
        chosen = whole if template == "all" else whole[[int(template) - 1]]
        assert found.tolist() == list(RESAMPLER.estimate(chosen))
