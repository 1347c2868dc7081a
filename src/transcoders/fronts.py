"""Two kinds of dictionary compared at the same sparsity.

Each kind's dictionaries at a site trace a front on the plane of L0 and cross entropy (CE). The
fronts are interpolated linearly in log L0 and compared over the range of L0 that both cover. So no
kind is judged where it has no dictionaries.

The difference is given in units of what the MLP is worth: the CE that is lost when its output is
replaced by its mean. Layers and models differ in that, and a difference of 0.01 nats is much where
an MLP is worth 0.08 and little where it is worth 6.

Only dictionaries that were trained alike make a front: of one width, on one amount of data.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from transcoders.statistics import RESAMPLES, resample

GRID_POINTS = 101
ANY_L0 = (0.0, np.inf)
PLAIN: tuple[str, str] = ("transcoder", "mlp_out_sae")
Draws = Float[np.ndarray, "draw point"]


class Setup(NamedTuple):
    """What the dictionaries of a front have in common: columns of ``evaluation.csv``."""

    n_features: int
    tokens_different: int
    tokens_trained: int
    """Repetitions counted."""


class FrontGap(NamedTuple):
    """How much more of an MLP's worth one kind recovers than another at equal L0.

    It is a share of the MLP's worth, averaged over log L0, and positive where the first kind is
    better.
    """

    draws: Float[np.ndarray, "draw run"]
    """In the data (first row) and in every resample of documents, for each training run."""
    n_documents: int
    l0_low: float
    """The range of L0 that both fronts cover, in the first training run."""
    l0_high: float


def like_headline(evaluation: pd.DataFrame, *columns: str) -> "pd.Series[bool]":
    """Which dictionaries agree in some columns with the headline dictionaries of their site.

    Those with the same :class:`Setup` can be compared with the headline dictionaries. Those of them
    with another seed are the headline dictionaries, trained again.

    Args:
        evaluation: ``evaluation.csv``. The headline dictionaries of a site are trained alike.
        columns: which; those that an older table lacks are left out.
    """
    given = evaluation.filter(columns).fillna(-1)
    headlines = given[evaluation["headline"]].groupby(evaluation["site"]).first()
    expected = headlines.reindex(evaluation["site"]).set_axis(evaluation.index)
    return (given == expected).all(axis=1)


def front_gap(
    evaluation: pd.DataFrame,
    by_document: pd.DataFrame,
    site: str,
    *,
    kinds: tuple[str, str] = PLAIN,
    setup: Setup,
    within: tuple[float, float] = ANY_L0,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> FrontGap | None:
    """Compare the fronts of two kinds at one site, of dictionaries that were trained alike.

    Args:
        evaluation: ``evaluation.csv``.
        by_document: ``evaluation_by_document.csv``.
        site: name of the site.
        kinds: the first kind, and the one that it is compared with.
        setup: how both were trained.
        within: the range of L0 to stay in, besides the one that both fronts cover.
        resamples: of documents. All dictionaries share each resample, in CE and in L0.
        seed: of the resampling.

    Returns:
        The gap, or None where the fronts share no range of L0.
    """
    at_site = _compared(evaluation, site, kinds, setup)
    if set(at_site["kind"]) != set(kinds):
        return None
    documents = by_document[by_document["dictionary"].isin(at_site["dictionary"])]
    # Order and seed decide what is drawn. Documents named by numbers are in numerical order.
    in_order = documents["document"].drop_duplicates().sort_values()
    numbers = pd.to_numeric(in_order, errors="coerce").to_numpy()
    in_order = in_order.iloc[numbers.argsort(kind="stable")]
    ce, l0 = (
        documents.pivot(index="document", columns="dictionary", values=column).loc[in_order]
        for column in ("ce", "l0")
    )
    tokens = documents.groupby("document")["tokens"].first().reindex(ce.index).to_numpy(float)
    weights = resample(len(ce), seed=seed, resamples=resamples) * tokens
    weights /= weights.sum(axis=1, keepdims=True)
    bounds = at_site.iloc[0]
    worth = bounds["ce_mean_ablated"] - bounds["ce_original"]
    grids = list(_at_equal_l0(at_site, kinds, weights, l0, ce, within))
    if not grids:
        return None
    # A resample in which the fronts share no range says nothing.
    gaps = [
        np.where(grid.shared, (grid.second - grid.first).mean(axis=1), np.nan) / worth
        for grid in grids
    ]
    return FrontGap(np.stack(gaps, axis=1), len(ce), grids[0].low, grids[0].high)


def levels_at_equal_l0(
    evaluation: pd.DataFrame,
    site: str,
    column: str,
    setup: Setup,
) -> tuple[Float[np.ndarray, " run"], Float[np.ndarray, " run"]] | None:
    """A column of ``evaluation.csv`` in both plain kinds, averaged over the log L0 that both cover.

    Args:
        evaluation: ``evaluation.csv``.
        site: name of the site.
        column: which.
        setup: how both were trained.

    Returns:
        The mean of each kind in every training run, or None where they share no range of L0.
    """
    at_site = _compared(evaluation, site, PLAIN, setup)
    l0, levels = (at_site.set_index("dictionary")[[name]].T for name in ("l0", column))
    grids = list(_at_equal_l0(at_site, PLAIN, np.eye(1), l0, levels))
    if not grids:
        return None
    return np.array([g.first.mean() for g in grids]), np.array([g.second.mean() for g in grids])


def headline_setup(evaluation: pd.DataFrame, site: str) -> Setup:
    """How the headline dictionaries of a site were trained."""
    headlines = evaluation[evaluation["headline"] & (evaluation["site"] == site)]
    return Setup(*map(int, headlines.iloc[0][list(Setup._fields)]))


def setups(evaluation: pd.DataFrame, site: str, kinds: tuple[str, str]) -> list[Setup]:
    """How dictionaries of both kinds were trained at a site, by width and then by data."""
    at_site = evaluation[evaluation["site"] == site]
    first, second = (
        set(at_site.loc[at_site["kind"] == kind, list(Setup._fields)].itertuples(index=False))
        for kind in kinds
    )
    return sorted(Setup(*map(int, each)) for each in first & second)


def _compared(
    evaluation: pd.DataFrame, site: str, kinds: tuple[str, str], setup: Setup
) -> pd.DataFrame:
    """The dictionaries of two kinds at a site that were trained alike and have an L0."""
    alike = (evaluation[list(Setup._fields)] == setup).all(axis=1)
    chosen = alike & (evaluation["site"] == site) & evaluation["kind"].isin(kinds)
    return evaluation[chosen & (evaluation["l0"] > 0)]


def _front(
    weights: Float[np.ndarray, "draw document"],
    l0: Float[np.ndarray, "document point"],
    values: Float[np.ndarray, "document point"],
) -> tuple[Draws, Draws]:
    """Log L0 and mean values of a kind's dictionaries in every draw, by ascending L0."""
    log_l0, means = np.log(weights @ l0), weights @ values
    order = log_l0.argsort(axis=1, kind="stable")
    return np.take_along_axis(log_l0, order, 1), np.take_along_axis(means, order, 1)


class _Grid(NamedTuple):
    """Two fronts on the same grid of log L0, in every draw."""

    first: Draws
    second: Draws
    shared: Bool[np.ndarray, " draw"]
    """Whether the fronts share a range of L0."""
    low: float
    high: float
    """The range of L0 in the data."""


def _at_equal_l0(
    dictionaries: pd.DataFrame,
    kinds: tuple[str, str],
    weights: Float[np.ndarray, "draw document"],
    l0: pd.DataFrame,
    values: pd.DataFrame,
    within: tuple[float, float] = ANY_L0,
) -> Iterator[_Grid]:
    """The fronts of two kinds over the range of L0 that both cover, in each training run.

    Runs in which there is no such range are left out. ``l0`` and ``values`` have a row for each
    document and a column for each dictionary.
    """
    for _, of_run in dictionaries.groupby("seed"):
        names = [of_run.loc[of_run["kind"] == kind, "dictionary"] for kind in kinds]
        if any(of_kind.empty for of_kind in names):
            continue
        first, second = (
            _front(weights, l0[of_kind].to_numpy(), values[of_kind].to_numpy()) for of_kind in names
        )
        with np.errstate(divide="ignore"):
            ends = np.log(within)
        low = np.maximum(np.maximum(first[0][:, 0], second[0][:, 0]), ends[0])
        high = np.minimum(np.minimum(first[0][:, -1], second[0][:, -1]), ends[1])
        if low[0] < high[0]:
            grid = low[:, None] + (high - low)[:, None] * np.linspace(0, 1, GRID_POINTS)
            both = interpolate(grid, *first), interpolate(grid, *second)
            yield _Grid(*both, low < high, float(np.exp(low[0])), float(np.exp(high[0])))


def interpolate(grid: Draws, x: Draws, y: Draws) -> Draws:
    """Linear interpolation in each row: of ``y``, given at ascending ``x``, at ``grid``.

    Beyond each end, the line through the last two points goes on.
    """
    right = (x[:, None, :] < grid[:, :, None]).sum(axis=2).clip(1, x.shape[1] - 1)
    (x0, x1), (y0, y1) = (
        [np.take_along_axis(values, right - step, axis=1) for step in (1, 0)] for values in (x, y)
    )
    share = (grid - x0) / np.where(x1 > x0, x1 - x0, 1)
    return y0 * (1 - share) + y1 * share
