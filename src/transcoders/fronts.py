"""Two kinds of dictionary compared at the same sparsity.

Each kind's dictionaries at a site trace a front on the plane of L0 and cross entropy. The fronts
are interpolated linearly in log L0 and compared over the range of L0 that both cover. So no kind is
judged where it has no dictionaries.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

GRID_POINTS = 101


class FrontGap(NamedTuple):
    """Cross entropy of one kind minus that of another at equal L0, averaged over log L0."""

    l0_low: float
    l0_high: float
    mean: float
    """Negative where the first kind is better. In nats."""
    low: float
    high: float
    """95% interval. Whole documents are resampled, and all dictionaries share each resample."""
    share_better: float
    """Share of the common range (in log L0) on which the first kind's front is below."""


def front_gap(
    evaluation: pd.DataFrame,
    by_document: pd.DataFrame,
    site: str,
    *,
    kind: str = "transcoder",
    other: str = "mlp_out_sae",
    resamples: int = 2000,
    seed: int = 0,
) -> FrontGap | None:
    """Compare the fronts of two kinds at one site.

    Args:
        evaluation: ``evaluation.csv``.
        by_document: ``evaluation_by_document.csv``.
        site: name of the site.
        kind: the first kind.
        other: the kind that it is compared with.
        resamples: of documents, for the interval.
        seed: of the resampling.

    Returns:
        The gap, or None where the fronts share no range of L0.
    """
    at_site = evaluation[(evaluation["site"] == site) & (evaluation["l0"] > 0)]
    fronts = [at_site[at_site["kind"] == k].sort_values("l0") for k in (kind, other)]
    log_l0 = [np.log(front["l0"].to_numpy()) for front in fronts]
    if any(len(values) == 0 for values in log_l0):
        return None
    low, high = max(values[0] for values in log_l0), min(values[-1] for values in log_l0)
    if low >= high:
        return None
    grid = np.linspace(low, high, GRID_POINTS)

    columns = [front["dictionary"].tolist() for front in fronts]
    documents = by_document[by_document["dictionary"].isin(at_site["dictionary"])]
    ce = documents.pivot(index="document", columns="dictionary", values="ce")
    tokens = documents.groupby("document")["tokens"].first().reindex(ce.index).to_numpy()
    n_documents = len(ce)
    draws = np.random.default_rng(seed).integers(n_documents, size=(resamples, n_documents))
    counts = np.stack([np.bincount(draw, minlength=n_documents) for draw in draws])
    weights = np.vstack([np.ones(n_documents), counts]) * tokens  # the first row is the data itself
    weights /= weights.sum(axis=1, keepdims=True)
    first, second = (
        _interpolate(grid, x, weights @ ce[names].to_numpy())
        for x, names in zip(log_l0, columns, strict=True)
    )
    gaps = first - second
    means = gaps.mean(axis=1)
    interval = np.percentile(means[1:], [2.5, 97.5])
    return FrontGap(
        l0_low=float(np.exp(low)),
        l0_high=float(np.exp(high)),
        mean=float(means[0]),
        low=float(interval[0]),
        high=float(interval[1]),
        share_better=float((gaps[0] < 0).mean()),
    )


def _interpolate(grid: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Linear interpolation of every row of ``y`` (given at ascending ``x``) at ``grid``."""
    right = np.clip(np.searchsorted(x, grid), 1, len(x) - 1)
    share = (grid - x[right - 1]) / (x[right] - x[right - 1])
    return y[:, right - 1] * (1 - share) + y[:, right] * share
