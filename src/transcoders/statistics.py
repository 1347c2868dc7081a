"""Estimates with 95% intervals, over clusters that were drawn independently.

A cluster is a document, a decade of years, or a feature. Its values stay together, so that an
interval says what other clusters of the same kind would give.

Most intervals come from resampling clusters. A statistic is computed for the data and for every
resample at once, from **weights**: how often each cluster was drawn. So everything that is compared
is resampled together, which keeps differences paired. Shares, and differences between two groups of
features, have textbook intervals instead.

Training runs are a second level. There are only a few, and resampling three runs would make
intervals too short. Therefore an error from Student's distribution, with as few degrees of freedom
as there are, is added to what the resampled clusters give (:class:`RunNoise`). If only some numbers
come from several runs, all are taken to vary from run to run as those do.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scipy  # loads its `stats`, which takes a second, when that is used
from jaxtyping import Bool, Float

RESAMPLES = 2000
LEVEL = 0.95


class Estimate(NamedTuple):
    """A number with its 95% interval."""

    value: float
    low: float
    high: float
    n: int
    """How many clusters there are."""
    resampled: str
    """What they are, in the plural: ``documents``, or ``documents, training runs``."""

    def record(self) -> dict[str, float | int | str | None]:
        """The estimate for JSON, which has neither NaN nor infinity: they become null."""
        return {
            name: None if isinstance(value, float) and not np.isfinite(value) else value
            for name, value in self._asdict().items()
        }

    @classmethod
    def of_record(cls, record: dict[str, Any]) -> "Estimate":
        """Read what :meth:`record` gave; null becomes NaN."""
        value, low, high = (
            np.nan if record[name] is None else float(record[name])
            for name in ("value", "low", "high")
        )
        return cls(value, low, high, record["n"], record["resampled"])


def exactly(value: float) -> Estimate:
    """A number that nothing is resampled for: its interval is one point."""
    return Estimate(value, value, value, 1, "nothing")


def resample(n: int, *, seed: int, resamples: int = RESAMPLES) -> Float[np.ndarray, "draw cluster"]:
    """How often each of n clusters counts: once in the data (the first row), then in resamples."""
    draws = np.random.default_rng(seed).integers(n, size=(resamples, n))
    draws += n * np.arange(resamples)[:, None]
    counts = np.bincount(draws.ravel(), minlength=resamples * n).reshape(resamples, n)
    return np.vstack([np.ones(n), counts])


def estimate(
    statistic: Float[np.ndarray, " draw"],
    n: int,
    resampled: str,
) -> Estimate:
    """A number with its interval, from the statistic of the data and of resamples.

    Args:
        statistic: in the data (first), and in resamples.
        n: how many clusters were resampled.
        resampled: what they are.

    Returns:
        The expanded percentile interval (Hesterberg 2015). Plain percentiles are too close together
        where there are few clusters. They fall short by as much as Student's distribution with
        n - 1 degrees of freedom is wider than the normal one, and by the bias of a standard
        deviation. The ends are
        values of the statistic, which may be infinite. Resamples without a value (NaN) are left
        out.
    """
    values = statistic[1:][~np.isnan(statistic[1:])]
    if n < 2 or not len(values):  # nothing tells how far another cluster would be
        return Estimate(float(statistic[0]), np.nan, np.nan, n, resampled)
    reach = np.sqrt(n / (n - 1)) * scipy.stats.t.ppf((1 + LEVEL) / 2, n - 1)
    tails = 100 * scipy.stats.norm.cdf([-reach, reach])
    low, high = np.percentile(values, tails, method="nearest")
    return Estimate(float(statistic[0]), float(low), float(high), n, resampled)


class RunNoise(NamedTuple):
    """How much a number varies from one training run to the next."""

    sd: float
    """Its standard deviation."""
    df: int
    """The degrees of freedom of this estimate."""

    @classmethod
    def pooled(cls, groups: Iterable[Float[np.ndarray, " run"]]) -> "RunNoise | None":
        """From groups of runs that differ by chance alone; None if no group has two runs.

        Groups may have different means, and are taken to vary alike.
        """
        several = [runs for runs in groups if len(runs) > 1]
        if not several:
            return None
        df = sum(len(runs) - 1 for runs in several)
        squares = sum(float(np.square(runs - runs.mean()).sum()) for runs in several)
        return cls(float(np.sqrt(squares / df)), df)

    def estimate(self) -> Estimate:
        """The standard deviation with the interval that normal errors give it."""
        tails = scipy.stats.chi2.ppf([(1 + LEVEL) / 2, (1 - LEVEL) / 2], self.df)
        low, high = self.sd * np.sqrt(self.df / tails)
        return Estimate(self.sd, float(low), float(high), self.df, "degrees of freedom")


def with_run_noise(
    draws: Float[np.ndarray, "draw number"],
    n_runs: Sequence[int],
    noise: RunNoise | None,
    *,
    seed: int,
) -> Float[np.ndarray, "draw number"]:
    """Add to every resample what other training runs would have changed.

    Args:
        draws: numbers in the data (the first row) and in resamples of clusters.
        n_runs: how many training runs each number is the mean of.
        noise: of one run; None adds nothing.
        seed: of the errors.

    Returns:
        The same with errors from Student's distribution, independent from number to number. So
        differences, slopes and whatever else is computed from a row have the errors that follow.
    """
    if noise is None:
        return draws
    random = np.random.default_rng((seed, noise.df))
    errors = random.standard_normal((len(draws) - 1, draws.shape[1])) / np.sqrt(n_runs)
    errors *= noise.sd * np.sqrt(noise.df / random.chisquare(noise.df, (len(draws) - 1, 1)))
    return draws + np.vstack([np.zeros(draws.shape[1]), errors])


def mean_of_runs(values: Float[np.ndarray, " run"]) -> Estimate:
    """The mean over training runs, with Student's interval. That of one run is NaN."""
    value, n = float(values.mean()), len(values)
    error = float(scipy.stats.sem(values)) if n > 1 else np.nan
    reach = error * float(scipy.stats.t.ppf((1 + LEVEL) / 2, n - 1)) if n > 1 else np.nan
    return Estimate(value, value - reach, value + reach, n, "training runs")


def mean(
    values: Float[np.ndarray, " value"],
    resampled: str,
    *,
    seed: int,
    clusters: Sequence[object] | np.ndarray | None = None,
    weights: Float[np.ndarray, " value"] | None = None,
) -> Estimate:
    """The mean of values, with clusters of them resampled.

    Args:
        values: at least one. The interval of a single cluster is NaN.
        resampled: what a cluster is, in the plural.
        seed: of the resampling.
        clusters: the cluster of each value; None if each value is one.
        weights: how much each value counts; None if all count alike.
    """
    weights = np.ones(len(values)) if weights is None else weights
    numbers = np.arange(len(values)) if clusters is None else pd.factorize(np.asarray(clusters))[0]
    n = int(numbers.max()) + 1
    drawn = resample(n, seed=seed)
    sums, sizes = (np.bincount(numbers, each) for each in (values * weights, weights))
    return estimate((drawn @ sums) / (drawn @ sizes), n, resampled)


def mean_of_features(studies: pd.DataFrame, values: "pd.Series[float]", *, seed: int) -> Estimate:
    """The mean of a value over studies (``layer, feature``) of features, each a cluster.

    Dictionaries of one layer that differ in sparsity begin with the same weights. So features of
    the same number in them are much the same feature, and make one cluster.
    """
    same = studies["layer"].astype(str) + "/" + studies["feature"].astype(str)
    return mean(values.to_numpy(), "features", clusters=same.to_numpy(), seed=seed)


def share(count: int, total: int, resampled: str) -> Estimate:
    """A share, with Wilson's interval: few clusters that say yes or no cannot be resampled."""
    interval = scipy.stats.binomtest(count, total).proportion_ci(method="wilson")
    return Estimate(count / total, float(interval.low), float(interval.high), total, resampled)


def difference_of_shares(
    first: Float[np.ndarray, " cluster"],
    second: Float[np.ndarray, " other_cluster"],
    resampled: str,
) -> Estimate:
    """The mean of values from 0 to 1 in one group minus that in another, by Agresti and Caffo.

    A 0 and a 1 are added to each group before Welch's interval is computed (Agresti and Caffo
    2000). So a group of equal values does not count as certain.
    """
    padded = [np.concatenate([group, [0.0, 1.0]]) for group in (first, second)]
    interval = scipy.stats.ttest_ind(*padded, equal_var=False).confidence_interval(LEVEL)
    value = float(np.mean(first) - np.mean(second))
    low, high = min(float(interval.low), value), max(float(interval.high), value)
    return Estimate(value, low, high, len(first) + len(second), resampled)


def matched_difference(
    members: pd.DataFrame, value: str, strata: list[str], resampled: str
) -> Estimate | None:
    """The mean difference of two groups between members that are alike.

    Members are alike if they are in the same stratum. Strata count by the smaller of the two
    groups, so that both are compared where both have members (their common support). A stratum
    needs two of each. The interval is normal, with the variance of a stratified mean, where members
    of a group vary alike in all strata.

    Args:
        members: of both groups. The column ``group`` is 0 or 1.
        value: the column that is compared, group 0 minus group 1.
        strata: the columns in which members of a stratum are equal.
        resampled: what the members are, in the plural.

    Returns:
        The estimate, or None where no stratum has two members of each group.
    """
    groups = members.groupby([*strata, "group"])[value]
    size, average, variance = (groups.agg(how).unstack() for how in ("size", "mean", "var"))
    common = (size.fillna(0) >= 2).all(axis=1)
    if not common.any():
        return None
    sizes, means, variances = (each[common].to_numpy() for each in (size, average, variance))
    # Within strata, over all of them: two members alone say little of how much they vary.
    variances = (variances * (sizes - 1)).sum(axis=0) / (sizes - 1).sum(axis=0)
    weights = sizes.min(axis=1) / sizes.min(axis=1).sum()
    difference = float(weights @ (means[:, 0] - means[:, 1]))
    error = float(np.sqrt(weights**2 @ (variances / sizes).sum(axis=1)))
    low, high = difference, difference
    if error:
        low, high = scipy.stats.norm.interval(LEVEL, loc=difference, scale=error)
    return Estimate(difference, float(low), float(high), int(sizes.sum()), resampled)


def halves(
    n: int, *, seed: int
) -> tuple[Bool[np.ndarray, " cluster"], Bool[np.ndarray, " cluster"]]:
    """Two halves of n clusters, drawn at random: one to choose on, the other to test the choice.

    Whatever is chosen as the largest of many is too large on the data it was chosen by.
    """
    first = np.zeros(n, dtype=bool)
    first[np.random.default_rng(seed).permutation(n)[: n // 2]] = True
    return first, ~first
