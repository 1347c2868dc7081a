"""Means with intervals."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import stats


class Interval(NamedTuple):
    """A mean and the ends of its interval; NaN where there are too few values."""

    mean: float
    low: float
    high: float


def mean_interval(values: Float[np.ndarray, " value"]) -> Interval:
    """The mean of independent values with Student's 95% interval."""
    mean = float(values.mean()) if len(values) else np.nan
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values) if len(values) > 1 else np.nan
    return Interval(mean, mean - half, mean + half)
