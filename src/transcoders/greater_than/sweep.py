"""How much of the task a few units carry (Figure 4): the metric against the number kept.

Units are ranked by variance over the years at the last position. The first k are kept, and the
others are set to zero. Templates are averaged, and also reported one by one.
"""

from collections.abc import Iterable
from typing import NamedTuple

import pandas as pd
import torch

from transcoders.greater_than.estimates import Curve, most_harmful, over_years
from transcoders.greater_than.task import AVERAGED_YEARS
from transcoders.greater_than.units import ChosenMLP, UnitKind
from transcoders.progress import progress_bar
from transcoders.statistics import Estimate


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


class BadFeature(NamedTuple):
    """The unit that does most harm where it was sought."""

    unit: int
    rank: int
    """From 1 on, by variance."""
    drop: Estimate
    """What adding it takes from the metric on prompts that did not choose it."""


def find_bad_feature(mlp: ChosenMLP, curve: Curve, *, seed: int) -> tuple[BadFeature, Curve]:
    """Add the transcoder's features one by one, and find the one that does most harm.

    Returns:
        The feature, and the curve at every number of units up to its end.
    """
    most = max(curve)
    curve = curve | sweep(mlp, "transcoder", set(range(most)) - set(curve))
    curve = dict(sorted(curve.items()))
    values = torch.stack(list(curve.values()))[..., AVERAGED_YEARS].double()
    place, drop = most_harmful((values[:-1] - values[1:]).numpy(), seed=seed)
    return BadFeature(int(mlp.ranking("transcoder")[place]), place + 1, drop), curve


def curve_table(curves: dict[str, Curve], *, seed: int) -> pd.DataFrame:
    """Rows ``curve, kept, template, metric, low, high``; template ``all`` is their mean."""
    rows = []
    for name, curve in curves.items():
        for n_kept, values in curve.items():
            for number, chosen in enumerate([values, *values.split(1)]):
                found = over_years(chosen, seed=seed)
                rows.append((name, n_kept, str(number or "all"), *found[:3]))
    return pd.DataFrame(rows, columns=["curve", "kept", "template", "metric", "low", "high"])
