"""How much of the task a few units carry (Figure 4): the metric against the number kept.

Units are ranked by variance over the years at the last position. The first k are kept, and the
others are set to zero. Intervals resample the years, with all templates of a year together, since
a model may know some years and not others. Templates are also reported one by one.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float
from torch import Tensor

from transcoders.greater_than.task import AVERAGED_YEARS
from transcoders.greater_than.units import ChosenMLP, UnitKind
from transcoders.progress import progress_bar

RESAMPLES = 2000
Curve = dict[int, Float[Tensor, "template 100"]]
"""The metric of every prompt by the number of units kept, ascending."""


class BadFeature(NamedTuple):
    """The unit whose addition costs the metric most."""

    unit: int
    rank: int
    """From 1 on, by variance."""
    drop: dict[str, Any]
    """What adding it takes from the metric, as :func:`interval` gives it. It is the largest of many
    drops, so the value is biased upwards. The interval tells whether other years would show a drop
    too."""


def sweep(
    mlp: ChosenMLP, kind: UnitKind, kept: Iterable[int], *, without: int | None = None
) -> Curve:
    """The metric with the first units of a ranking kept.

    Args:
        mlp: the chosen MLP.
        kind: of units.
        kept: numbers of units to keep.
        without: a unit that is never kept.
    """
    ranking, numbers = mlp.ranking(kind), sorted(kept)
    if without is not None:
        ranking = ranking[ranking != without]
    curve = {}
    with progress_bar(len(numbers), f"keeping {kind}", "points") as bar:
        for n_kept in numbers:
            curve[n_kept] = mlp.metrics(kind, ranking[:n_kept])
            bar.update(1)
    return curve


def find_bad_feature(
    mlp: ChosenMLP, curve: Curve, resampler: "Resampler"
) -> tuple[BadFeature | None, Curve]:
    """The unit whose addition lowers the metric most, if the interval of this drop is above zero.

    Args:
        mlp: the chosen MLP.
        curve: of its transcoder.
        resampler: for the interval.

    Returns:
        The unit, and the curve at every number of units up to its end.
    """
    most = max(curve)
    curve = curve | sweep(mlp, "transcoder", set(range(most)) - set(curve))
    drops = {rank: curve[rank - 1] - curve[rank] for rank in range(1, most + 1)}
    rank = max(drops, key=lambda rank: resampler.means(drops[rank])[0])
    drop = interval(resampler.means(drops[rank]))
    bad = BadFeature(int(mlp.ranking("transcoder")[rank - 1]), rank, drop)
    return bad if drop["low"] > 0 else None, dict(sorted(curve.items()))


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

    def heights(self, curve: Curve) -> np.ndarray:
        """(number of units, 1 + resample): the means of every point."""
        return np.stack([self.means(values) for values in curve.values()])


def interval(statistic: np.ndarray) -> dict[str, Any]:
    """``value``, ``low`` and ``high`` (95%) of a statistic of the data and of resamples.

    None stands for infinity, which JSON does not have.
    """
    # The nearest of the values, since those between two of them may not exist: some are infinite.
    low, high = np.percentile(statistic[1:], [2.5, 97.5], method="nearest")
    numbers = {"value": statistic[0], "low": low, "high": high}
    return {name: float(x) if np.isfinite(x) else None for name, x in numbers.items()}


def mean_height(curve: Curve, resampler: Resampler) -> np.ndarray:
    """The area under a curve divided by its width, for the data and all resamples."""
    kept = list(curve)
    return np.trapezoid(resampler.heights(curve), kept, axis=0) / (kept[-1] - kept[0])


def catch_up(first: Curve, second: Curve, resampler: Resampler) -> np.ndarray:
    """The first number of units, from 1 on, at which the second curve is not below the first.

    Straight lines join the numbers that were measured.

    Returns:
        For the data and all resamples: infinite where the first curve is ahead to the end, 1 where
        it is not ahead with one unit, whatever comes later.
    """
    grid = np.arange(1, min(max(first), max(second)) + 1)
    one, other = (
        np.stack([np.interp(grid, list(curve), column) for column in resampler.heights(curve).T])
        for curve in (first, second)
    )
    behind = one <= other
    return np.where(behind.any(axis=1), grid[behind.argmax(axis=1)], np.inf)


def curve_table(curves: dict[str, Curve], resampler: Resampler) -> pd.DataFrame:
    """Rows ``curve, kept, template, metric, low, high``; template ``all`` is their mean."""
    rows = []
    for name, curve in curves.items():
        for n_kept, values in curve.items():
            for number, chosen in enumerate([values, *values.split(1)]):
                found = interval(resampler.means(chosen)).values()
                rows.append((name, n_kept, str(number or "all"), *found))
    return pd.DataFrame(rows, columns=["curve", "kept", "template", "metric", "low", "high"])
