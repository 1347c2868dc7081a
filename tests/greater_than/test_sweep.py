"""Curves, their intervals and areas, and bad units, all on units whose effects are known."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from transcoders.greater_than.sweep import (
    Curve,
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
        self.asked: list[list[int]] = []

    def ranking(self, kind: str) -> Tensor:
        assert kind == "transcoder"
        return self._ranking

    def metrics(self, kind: str, kept: Tensor) -> Tensor:
        assert kind == "transcoder"
        self.asked.append(kept.tolist())
        return self.effects[kept].sum(dim=0)


def known(effects: list[float], ranking: list[int], noise: float = 0.0) -> Any:
    return KnownUnits(effects, ranking, noise)


def made_up(heights: dict[int, float]) -> Curve:
    """Of the same height for every prompt."""
    return {n_kept: torch.full((2, 100), height) for n_kept, height in heights.items()}


def random_values(seed: int, templates: int = 3) -> Tensor:
    return torch.randn(templates, 100, generator=torch.Generator().manual_seed(seed))


def test_a_curve_is_measured_at_the_numbers_asked_for_along_the_ranking() -> None:
    mlp = known([0.1, 0.2, 0.4, 0.8], [2, 0, 3, 1])
    found = sweep(mlp, "transcoder", [0, 1, 3, 4])
    assert mlp.asked == [[], [2], [2, 0, 3], [2, 0, 3, 1]]
    heights = {n_kept: values.mean().item() for n_kept, values in found.items()}
    assert heights == pytest.approx({0: 0, 1: 0.4, 3: 1.3, 4: 1.5})
    mlp.asked.clear()
    sweep(mlp, "transcoder", [0, 1, 2, 3], without=0)
    assert mlp.asked == [[], [2], [2, 3], [2, 3, 1]]


@given(st.integers(0, 2**31))
def test_estimates_are_of_templates_and_years_but_the_first_and_last(seed: int) -> None:
    values = random_values(seed)
    expected = sum(x for row in values.tolist() for x in row[1:99]) / (3 * 98)
    values[:, [0, 99]] = torch.nan
    found = interval(RESAMPLER.means(values))
    assert found["value"] == pytest.approx(expected, abs=1e-6)
    assert found["low"] < found["value"] < found["high"]
    # Of the mean of 3 x 98 standard normal numbers.
    assert 0.5 < (found["high"] - found["low"]) / (2 * 1.96 / (3 * 98) ** 0.5) < 1.6


def test_all_templates_of_a_year_are_drawn_together() -> None:
    # Opposite templates cancel in every draw of years, and would not if drawn alone.
    values = random_values(5, templates=1)
    assert RESAMPLER.means(torch.cat([values, -values])) == pytest.approx(0, abs=1e-7)


def test_intervals_are_percentiles_of_the_resamples_without_infinity() -> None:
    statistic = np.array([7.0, *np.arange(1001.0)])  # of the data, then of resamples
    assert interval(statistic) == {"value": 7, "low": 25, "high": 975}
    statistic[1:100] = np.inf
    assert interval(statistic)["high"] is None
    assert interval(np.array([np.inf, *[3.0] * 99])) == {"value": None, "low": 3, "high": 3}


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_a_bad_unit_is_found_wherever_it_is(rank: int) -> None:
    ranking = [3, 1, 4, 0, 2]
    effects = [0.1] * 5
    effects[ranking[rank - 1]] = -0.1
    mlp = known(effects, ranking)
    bad, curve = find_bad_feature(mlp, sweep(mlp, "transcoder", [0, 5]), RESAMPLER)
    assert bad is not None
    assert (bad.unit, bad.rank) == (ranking[rank - 1], rank)
    assert list(bad.drop.values()) == pytest.approx([0.1] * 3)
    assert list(curve) == [0, 1, 2, 3, 4, 5]


def test_a_drop_that_other_years_might_not_show_is_not_held_against_a_unit() -> None:
    # It costs 0.05 on average, and from 0.7 to 2.7 and back from year to year.
    mlp = known([0.3, -0.05, 0.2], [1, 0, 2], noise=2)
    mlp.effects[1] -= mlp.effects[1, :, 1:99].mean() + 0.05
    mlp.effects[[0, 2]] = 0.5
    bad, curve = find_bad_feature(mlp, sweep(mlp, "transcoder", [0, 3]), RESAMPLER)
    assert bad is None
    assert RESAMPLER.means(curve[0] - curve[1])[0] == pytest.approx(0.05, abs=1e-6)
    mlp.effects[1] = -0.05
    bad, _ = find_bad_feature(mlp, sweep(mlp, "transcoder", [0, 3]), RESAMPLER)
    assert bad is not None


def test_the_mean_height_weighs_by_width() -> None:
    # Trapezoids: 0.5 wide 1, then 1 wide 1, then 0.75 wide 2.
    heights = {10: 0.0, 11: 1.0, 12: 1.0, 14: 0.5}
    assert mean_height(made_up(heights), RESAMPLER) == pytest.approx((0.5 + 1 + 1.5) / 4)


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
    one, other = (made_up(dict(zip(KEPT, heights, strict=True))) for heights in (first, second))
    found = catch_up(one, other, RESAMPLER)
    assert found.shape == (201,)
    assert found.tolist() == [expected] * 201


def test_the_table_has_every_curve_point_and_template() -> None:
    values = {n_kept: random_values(n_kept, templates=2) for n_kept in (0, 3)}
    curves = {"transcoder": values, "neurons": {1: random_values(9, templates=2)}}
    table = curve_table(curves, RESAMPLER)
    expected = [
        (name, n_kept, template, *interval(RESAMPLER.means(chosen)).values())
        for name, curve in curves.items()
        for n_kept, both in curve.items()
        for template, chosen in (("all", both), ("1", both[:1]), ("2", both[1:]))
    ]
    assert list(table.columns) == ["curve", "kept", "template", "metric", "low", "high"]
    assert list(table.itertuples(index=False, name=None)) == expected
