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

    def metrics(self, kind: str, kept: Tensor) -> Tensor:
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


def test_without_a_unit_the_others_keep_their_order() -> None:
    mlp = known([0.1, 0.2, 0.4, 0.8], [2, 0, 3, 1])
    whole = sweep(mlp, "transcoder", [0, 4])
    mlp.asked.clear()
    found = sweep(mlp, "transcoder", [0, 1, 2, 3], without_bad=0)
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


def test_the_mean_height_weighs_by_width() -> None:
    # Trapezoids: 0.5 wide 1, then 1 wide 1, then 0.75 wide 2.
    heights = {10: 0.0, 11: 1.0, 12: 1.0, 14: 0.5}
    assert mean_height(curve(heights), RESAMPLER) == pytest.approx((0.5 + 1 + 1.5) / 4)


def test_json_has_no_infinity() -> None:
    bad = BadFeature(5, 2, Estimate(0.5, -np.inf, np.inf))
    drop = {"value": 0.5, "low": None, "high": None}
    assert bad.record() == {"unit": 5, "rank": 2, "drop": drop}


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
