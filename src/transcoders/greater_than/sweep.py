"""How much of the task a few units carry (Figure 4): the metric against the number kept.

Units are ranked by variance over the years at the last position; the k first are kept and the
others set to zero. Intervals resample the years, with all templates of a year together: it is
years that a model may know or not. Templates are also reported one by one.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from torch import Tensor

from transcoders.greater_than.task import AVERAGED_YEARS
from transcoders.greater_than.units import ChosenMLP, UnitKind
from transcoders.progress import progress_bar

RESAMPLES = 2000


@dataclass
class Curve:
    """The metric with the first so many units of a ranking."""

    name: str
    kind: UnitKind
    ranking: Int[Tensor, " unit"]
    values: dict[int, Float[Tensor, "template 100"]]
    """By the number of units kept."""

    def measure(self, mlp: ChosenMLP, n_kept: int) -> None:
        """Add a point, if it is not there."""
        if n_kept not in self.values:
            self.values[n_kept] = mlp.with_kept(self.kind, self.ranking[:n_kept])
            self.values = dict(sorted(self.values.items()))

    @property
    def kept(self) -> list[int]:
        """Numbers of units that were measured, ascending."""
        return list(self.values)


class Estimate(NamedTuple):
    """A number with its 95% interval."""

    value: float
    low: float
    high: float

    def record(self) -> dict[str, float | None]:
        """For JSON, which has no infinity: null instead."""
        return {name: x if np.isfinite(x) else None for name, x in self._asdict().items()}


class BadFeature(NamedTuple):
    """The unit whose addition costs the metric most."""

    unit: int
    rank: int
    """From 1, the unit of the largest variance."""
    drop: Estimate
    """What adding it takes from the metric. The largest of many drops, so the value is biased
    upwards; the interval says whether it is a drop for other years too."""

    def record(self) -> dict[str, Any]:
        """For JSON."""
        return {**self._asdict(), "drop": self.drop.record()}


def sweep(mlp: ChosenMLP, kind: UnitKind, kept: list[int]) -> Curve:
    """The curve of one kind."""
    curve = Curve(kind, kind, mlp.ranking(kind), {})
    with progress_bar(len(kept), f"keeping {kind}", "points") as bar:
        for n_kept in kept:
            curve.measure(mlp, n_kept)
            bar.update(1)
    return curve


def without(mlp: ChosenMLP, curve: Curve, unit: int, kept: list[int]) -> Curve:
    """The same curve with one unit never kept."""
    remaining = curve.ranking[curve.ranking != unit]
    result = Curve(f"{curve.name}_without_bad", curve.kind, remaining, {})
    for n_kept in kept:
        result.measure(mlp, n_kept)
    return result


def find_bad_feature(mlp: ChosenMLP, curve: Curve, resampler: "Resampler") -> BadFeature | None:
    """The unit whose addition lowers the metric most, if it does so beyond doubt.

    The curve is measured at every number of units up to its end first.
    """
    most = curve.kept[-1]
    with progress_bar(most, "adding units one by one", "units") as bar:
        for n_kept in range(most):
            curve.measure(mlp, n_kept)
            bar.update(1)
    drops = {rank: curve.values[rank - 1] - curve.values[rank] for rank in range(1, most + 1)}
    rank = max(drops, key=lambda rank: resampler.mean(drops[rank]))
    drop = resampler.estimate(drops[rank])
    return BadFeature(int(curve.ranking[rank - 1]), rank, drop) if drop.low > 0 else None


class Resampler:
    """Means over templates and years, and the same on resampled years."""

    def __init__(self, seed: int, resamples: int = RESAMPLES) -> None:
        n = AVERAGED_YEARS.stop - AVERAGED_YEARS.start
        draws = np.random.default_rng(seed).integers(n, size=(resamples, n))
        counts = [np.bincount(draw, minlength=n) for draw in draws]
        self._weights = np.vstack([np.ones(n), *counts]) / n  # the first row is the data itself

    def means(self, values: Float[Tensor, "template 100"]) -> np.ndarray:
        """The mean, then that of each resample."""
        return self._weights @ values[:, AVERAGED_YEARS].mean(dim=0).double().numpy()

    def mean(self, values: Float[Tensor, "template 100"]) -> float:
        """The mean over templates and years."""
        return float(self.means(values)[0])

    def estimate(self, values: Float[Tensor, "template 100"]) -> Estimate:
        """The mean with its interval."""
        return interval(self.means(values))


def interval(statistic: np.ndarray) -> Estimate:
    """A statistic of the data and of resamples as a number with its interval."""
    # The nearest of the values, since those between two of them may not exist: some are infinite.
    low, high = np.percentile(statistic[1:], [2.5, 97.5], method="nearest")
    return Estimate(float(statistic[0]), float(low), float(high))


def mean_height(curve: Curve, resampler: Resampler) -> np.ndarray:
    """The area under a curve over its width (trapezoids), for the data and all resamples."""
    heights = np.stack([resampler.means(values) for values in curve.values.values()])
    return np.trapezoid(heights, curve.kept, axis=0) / (curve.kept[-1] - curve.kept[0])


def catch_up(first: Curve, second: Curve, resampler: Resampler) -> np.ndarray:
    """The number of units, from 1 on, at which the second curve is no longer below the first.

    Both are joined by straight lines between the numbers that were measured.

    Returns:
        For the data and all resamples; infinite where the first is ahead to the end, 1 where it is
        not ahead with one unit, whatever it is later.
    """
    grid = np.arange(1, min(first.kept[-1], second.kept[-1]) + 1)
    behind = _heights(first, resampler, grid) <= _heights(second, resampler, grid)
    return np.where(behind.any(axis=0), grid[behind.argmax(axis=0)], np.inf)


def _heights(curve: Curve, resampler: Resampler, grid: np.ndarray) -> np.ndarray:
    heights = np.stack([resampler.means(values) for values in curve.values.values()])
    return np.stack([np.interp(grid, curve.kept, column) for column in heights.T], axis=1)


def curve_table(curves: list[Curve], resampler: Resampler) -> pd.DataFrame:
    """Rows ``curve, kept, template, metric, low, high``; template ``all`` is their mean."""
    rows: list[dict[str, Any]] = []
    for curve in curves:
        for n_kept, values in curve.values.items():
            templates = {"all": values} | {
                str(number): row[None] for number, row in enumerate(values, start=1)
            }
            for template, chosen in templates.items():
                value, low, high = resampler.estimate(chosen)
                rows.append(
                    {
                        "curve": curve.name, "kept": n_kept, "template": template,
                        "metric": value, "low": low, "high": high,
                    }
                )  # fmt: skip
    return pd.DataFrame(rows)
