"""How much of the task a few units carry (Figure 4): the metric against the number kept.

Units are ranked by variance over the years at the last position. The first k are kept, and the
others are set to zero. Intervals resample the years, with all templates of a year together, since
a model may know some years and not others. Templates are also reported one by one.
"""

from collections.abc import Iterable
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
    """The metric against the number of units kept, the first of a ranking."""

    name: str
    kind: UnitKind
    ranking: Int[Tensor, " unit"]
    values: dict[int, Float[Tensor, "template 100"]]
    """By the number of units kept."""

    def measure(self, mlp: ChosenMLP, kept: Iterable[int], title: str) -> None:
        """Add the points that are not there yet; ``title`` is that of the progress bar."""
        missing = sorted(set(kept) - set(self.values))
        with progress_bar(len(missing), title, "points") as bar:
            for n_kept in missing:
                self.values[n_kept] = mlp.metrics(self.kind, self.ranking[:n_kept])
                bar.update(1)
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
    """From 1 on, by variance."""
    drop: Estimate
    """What adding it takes from the metric. It is the largest of many drops, so the value is biased
    upwards. The interval tells whether other years would show a drop too."""

    def record(self) -> dict[str, Any]:
        """For JSON."""
        return {**self._asdict(), "drop": self.drop.record()}


def sweep(
    mlp: ChosenMLP, kind: UnitKind, kept: list[int], *, without_bad: int | None = None
) -> Curve:
    """The curve of one kind.

    Args:
        mlp: the chosen MLP.
        kind: of units.
        kept: numbers of units to keep.
        without_bad: a unit that is never kept.
    """
    name, ranking = str(kind), mlp.ranking(kind)
    if without_bad is not None:
        name, ranking = f"{kind}_without_bad", ranking[ranking != without_bad]
    curve = Curve(name, kind, ranking, {})
    curve.measure(mlp, kept, f"keeping {name}")
    return curve


def find_bad_feature(mlp: ChosenMLP, curve: Curve, resampler: "Resampler") -> BadFeature | None:
    """The unit whose addition lowers the metric most, if the interval of this drop is above zero.

    First, this measures the curve at every number of units up to its end.
    """
    most = curve.kept[-1]
    curve.measure(mlp, range(most), "adding units one by one")
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
    """The area under a curve divided by its width, for the data and all resamples."""
    heights = np.stack([resampler.means(values) for values in curve.values.values()])
    return np.trapezoid(heights, curve.kept, axis=0) / (curve.kept[-1] - curve.kept[0])


def catch_up(first: Curve, second: Curve, resampler: Resampler) -> np.ndarray:
    """The first number of units, from 1 on, at which the second curve is not below the first.

    Straight lines join the numbers that were measured.

    Returns:
        For the data and all resamples: infinite where the first curve is ahead to the end, 1 where
        it is not ahead with one unit, whatever comes later.
    """
    grid = np.arange(1, min(first.kept[-1], second.kept[-1]) + 1)
    behind = _heights(first, resampler, grid) <= _heights(second, resampler, grid)
    return np.where(behind.any(axis=0), grid[behind.argmax(axis=0)], np.inf)


def _heights(curve: Curve, resampler: Resampler, grid: np.ndarray) -> np.ndarray:
    heights = np.stack([resampler.means(values) for values in curve.values.values()])
    return np.stack([np.interp(grid, curve.kept, column) for column in heights.T], axis=1)


def curve_table(curves: list[Curve], resampler: Resampler) -> pd.DataFrame:
    """Rows ``curve, kept, template, metric, low, high``; template ``all`` is their mean."""
    rows = []
    for curve in curves:
        for n_kept, values in curve.values.items():
            for number, chosen in enumerate([values, *values.split(1)]):
                template = str(number or "all")
                rows.append((curve.name, n_kept, template, *resampler.estimate(chosen)))
    return pd.DataFrame(rows, columns=["curve", "kept", "template", "metric", "low", "high"])
