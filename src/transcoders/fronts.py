"""Two kinds of dictionary compared at the same sparsity.

Each kind's dictionaries at a site trace a front on the plane of L0 and cross entropy (CE). The
fronts are interpolated linearly in log L0 and compared over the range of L0 that both cover. So no
kind is judged where it has no dictionaries.

The difference is given in units of what the MLP is worth: the CE that is lost when its output is
replaced by its mean. Layers and models differ in that, and a difference of 0.01 nats is much where
an MLP is worth 0.08 and little where it is worth 6.

Only dictionaries that were trained alike make a front: of one width, on one amount of data.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from transcoders.statistics import RESAMPLES, Estimate, estimate, resample

GRID_POINTS = 101
SETUP = ("n_features", "tokens_trained", "tokens_different")
"""What dictionaries must have in common to be compared: columns of ``evaluation.csv``."""
Draws = Float[np.ndarray, "draw point"]


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

    def estimate(self, *, seed: int) -> Estimate:
        """The mean over training runs with its interval."""
        return estimate(self.draws, self.n_documents, "documents", seed=seed)


def like_headline(evaluation: pd.DataFrame, *columns: str) -> "pd.Series[bool]":
    """Which dictionaries have the same in some columns as the headline dictionaries of their site.

    Those with the same :data:`SETUP` can be compared with these. Among them, those with another
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
        resamples: of documents. All dictionaries share each resample, in CE and in L0.
        seed: of the resampling.

    Returns:
        The gap, or None where the fronts share no range of L0.
    """
    at_site = evaluation[(evaluation["site"] == site) & evaluation["kind"].isin([kind, other])]
    at_site = at_site[like_headline(at_site, *SETUP) & (at_site["l0"] > 0)]
    if set(at_site["kind"]) != {kind, other}:
        return None
    documents = by_document[by_document["dictionary"].isin(at_site["dictionary"])]
    ce, l0 = (
        documents.pivot(index="document", columns="dictionary", values=c) for c in ("ce", "l0")
    )
    tokens = documents.groupby("document")["tokens"].first().reindex(ce.index).to_numpy(float)
    weights = resample(len(ce), seed=seed, resamples=resamples) * tokens
    weights /= weights.sum(axis=1, keepdims=True)
    bounds = at_site.iloc[0]
    worth = bounds["ce_mean_ablated"] - bounds["ce_original"]
    runs = at_site["seed"] if "seed" in at_site else pd.Series(0, index=at_site.index)
    gaps, about = [], []
    for _, of_run in at_site.groupby(runs):
        fronts = []
        for each in (kind, other):
            names = of_run.loc[of_run["kind"] == each, "dictionary"].tolist()
            fronts.append(_front(weights, l0[names].to_numpy(), ce[names].to_numpy()))
        found = _compare(*fronts)
        if found is not None:
            gaps.append(found[0] / worth)
            about.append(found[1:])
    if not gaps:
        return None
    return FrontGap(np.stack(gaps, axis=1), len(ce), *about[0])


def _front(
    weights: Float[np.ndarray, "draw document"],
    l0: Float[np.ndarray, "document point"],
    ce: Float[np.ndarray, "document point"],
) -> tuple[Draws, Draws]:
    """Log L0 and CE of a kind's dictionaries in every draw, by ascending L0."""
    log_l0, mean_ce = np.log(weights @ l0), weights @ ce
    order = log_l0.argsort(axis=1, kind="stable")
    return np.take_along_axis(log_l0, order, 1), np.take_along_axis(mean_ce, order, 1)


def _compare(
    first: tuple[Draws, Draws], second: tuple[Draws, Draws]
) -> tuple[Float[np.ndarray, " draw"], float, float, float] | None:
    """CE of the second front minus that of the first, averaged over the L0 that both cover."""
    if not first[0].shape[1] or not second[0].shape[1]:
        return None
    low = np.maximum(first[0][:, 0], second[0][:, 0])
    high = np.minimum(first[0][:, -1], second[0][:, -1])
    if low[0] >= high[0]:
        return None
    grid = low[:, None] + (high - low)[:, None] * np.linspace(0, 1, GRID_POINTS)
    gap = _interpolate(grid, *second) - _interpolate(grid, *first)
    ends = float(np.exp(low[0])), float(np.exp(high[0]))
    # A resample in which the fronts share no range says nothing.
    mean = np.where(low < high, gap.mean(axis=1), np.nan)
    return mean, *ends, float((gap[0] > 0).mean())


def _interpolate(grid: Draws, x: Draws, y: Draws) -> Draws:
    """Linear interpolation in each row: of ``y``, given at ascending ``x``, at ``grid``."""
    right = (x[:, None, :] < grid[:, :, None]).sum(axis=2).clip(1, x.shape[1] - 1)
    (x0, x1), (y0, y1) = (
        [np.take_along_axis(values, right - step, axis=1) for step in (1, 0)] for values in (x, y)
    )
    share = (grid - x0) / np.where(x1 > x0, x1 - x0, 1)
    return y0 * (1 - share) + y1 * share
