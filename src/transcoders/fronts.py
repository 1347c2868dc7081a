"""Two kinds of dictionary compared at the same sparsity.

Each kind's dictionaries at a site trace a front on the plane of L0 and cross entropy (CE). The
fronts are interpolated linearly in log L0 and compared over the range of L0 that both cover. So no
kind is judged where it has no dictionaries.

The difference is given in units of what the MLP is worth: the CE that is lost when its output is
replaced by its mean. Layers and models differ in that, and a difference of 0.01 nats is much where
an MLP is worth 0.08 and little where it is worth 6.

Only dictionaries that were trained alike make a front: of one width, on one amount of data.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from transcoders.statistics import RESAMPLES, resample

GRID_POINTS = 101
ANY_L0 = (0.0, np.inf)
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
    share_better: float
    """The share of that range (in log L0) on which the first kind is better."""


def like_headline(evaluation: pd.DataFrame, *columns: str) -> "pd.Series[bool]":
    """Which dictionaries have the same in some columns as the headline dictionaries of their site.

    Those with the same :class:`Setup` can be compared with these. Among them, those with another
    seed are the same dictionaries, trained again.

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
    kind: str = "transcoder",
    other: str = "mlp_out_sae",
    setup: Setup | None = None,
    within: tuple[float, float] = ANY_L0,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> FrontGap | None:
    """Compare the fronts of two kinds at one site, of dictionaries trained like its headline ones.

    Args:
        evaluation: ``evaluation.csv``.
        by_document: ``evaluation_by_document.csv``.
        site: name of the site.
        kind: the first kind.
        other: the kind that it is compared with.
        setup: how both were trained; None means as the site's headline dictionaries.
        within: the range of L0 to stay in, besides that which both fronts cover.
        resamples: of documents. All dictionaries share each resample, in CE and in L0.
        seed: of the resampling.

    Returns:
        The gap, or None where the fronts share no range of L0.
    """
    at_site = _compared(evaluation, site, (kind, other), setup)
    if set(at_site["kind"]) != {kind, other}:
        return None
    documents = by_document[by_document["dictionary"].isin(at_site["dictionary"])]
    # The order decides, with the seed, what is drawn. Documents named by numbers go by these.
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

    def front(of_kind: pd.DataFrame) -> tuple[Draws, Draws]:
        names = of_kind["dictionary"].tolist()
        return _front(weights, l0[names].to_numpy(), ce[names].to_numpy())

    gaps, about = [], []
    for found in _at_equal_l0(at_site, (kind, other), front, within):
        gap = found.second - found.first
        # A resample in which the fronts share no range says nothing.
        gaps.append(np.where(found.shared, gap.mean(axis=1), np.nan) / worth)
        about.append((found.low, found.high, float((gap[0] > 0).mean())))
    if not gaps:
        return None
    return FrontGap(np.stack(gaps, axis=1), len(ce), *about[0])


def levels_at_equal_l0(
    evaluation: pd.DataFrame,
    site: str,
    column: str,
    *,
    kind: str = "transcoder",
    other: str = "mlp_out_sae",
    setup: Setup | None = None,
) -> tuple[Float[np.ndarray, " run"], Float[np.ndarray, " run"]] | None:
    """A column of ``evaluation.csv`` in two kinds, averaged over the log L0 that both cover.

    Args:
        evaluation: ``evaluation.csv``.
        site: name of the site.
        column: which.
        kind: the first kind.
        other: the second.
        setup: how both were trained; None means as the site's headline dictionaries.

    Returns:
        The mean of each kind in every training run, or None where they share no range of L0.
    """
    at_site = _compared(evaluation, site, (kind, other), setup)

    def front(of_kind: pd.DataFrame) -> tuple[Draws, Draws]:
        return _front(np.eye(1), of_kind[["l0"]].to_numpy().T, of_kind[[column]].to_numpy().T)

    levels = [
        (found.first.mean(), found.second.mean())
        for found in _at_equal_l0(at_site, (kind, other), front)
    ]
    if not levels:
        return None
    of_first, of_second = np.array(levels).T
    return of_first, of_second


def setups(evaluation: pd.DataFrame, site: str, kinds: tuple[str, str]) -> list[Setup]:
    """How dictionaries of both kinds were trained at a site, by width and then by data."""
    at_site = evaluation[evaluation["site"] == site]
    first, second = (
        set(at_site.loc[at_site["kind"] == kind, list(Setup._fields)].itertuples(index=False))
        for kind in kinds
    )
    return sorted(Setup(*map(int, each)) for each in first & second)


def _compared(
    evaluation: pd.DataFrame, site: str, kinds: tuple[str, str], setup: Setup | None
) -> pd.DataFrame:
    """The dictionaries of two kinds at a site that were trained alike and have an L0."""
    at_site = evaluation[evaluation["site"] == site]
    if setup is None:
        alike = like_headline(at_site, *Setup._fields)
    else:
        alike = (at_site[list(Setup._fields)] == setup).all(axis=1)
    return at_site[alike & at_site["kind"].isin(kinds) & (at_site["l0"] > 0)]


def _front(
    weights: Float[np.ndarray, "draw document"],
    l0: Float[np.ndarray, "document point"],
    ce: Float[np.ndarray, "document point"],
) -> tuple[Draws, Draws]:
    """Log L0 and CE of a kind's dictionaries in every draw, by ascending L0."""
    log_l0, mean_ce = np.log(weights @ l0), weights @ ce
    order = log_l0.argsort(axis=1, kind="stable")
    return np.take_along_axis(log_l0, order, 1), np.take_along_axis(mean_ce, order, 1)


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
    front: Callable[[pd.DataFrame], tuple[Draws, Draws]],
    within: tuple[float, float] = ANY_L0,
) -> Iterator[_Grid]:
    """The fronts of two kinds over the range of L0 that both cover, in each training run.

    Runs in which there is no such range are left out.
    """
    for _, of_run in dictionaries.groupby("seed"):
        points = [of_run[of_run["kind"] == kind] for kind in kinds]
        if any(of_kind.empty for of_kind in points):
            continue
        first, second = map(front, points)
        with np.errstate(divide="ignore"):
            ends = np.log(within)
        low = np.maximum(np.maximum(first[0][:, 0], second[0][:, 0]), ends[0])
        high = np.minimum(np.minimum(first[0][:, -1], second[0][:, -1]), ends[1])
        if low[0] < high[0]:
            grid = low[:, None] + (high - low)[:, None] * np.linspace(0, 1, GRID_POINTS)
            values = interpolate(grid, *first), interpolate(grid, *second)
            yield _Grid(*values, low < high, float(np.exp(low[0])), float(np.exp(high[0])))


def interpolate(grid: Draws, x: Draws, y: Draws) -> Draws:
    """Linear interpolation in each row: of ``y``, given at ascending ``x``, at ``grid``.

    Beyond both ends, the line through the last two points goes on.
    """
    right = (x[:, None, :] < grid[:, :, None]).sum(axis=2).clip(1, x.shape[1] - 1)
    (x0, x1), (y0, y1) = (
        [np.take_along_axis(values, right - step, axis=1) for step in (1, 0)] for values in (x, y)
    )
    share = (grid - x0) / np.where(x1 > x0, x1 - x0, 1)
    return y0 * (1 - share) + y1 * share
