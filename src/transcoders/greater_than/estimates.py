"""What the study concludes, with intervals over years.

Years are resampled with all templates of a year together, since a model may know some years and not
others. Whatever is chosen as the best or worst of many parts is tested against all others, or on
prompts that did not choose it.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from transcoders.greater_than.task import AVERAGED_YEARS
from transcoders.statistics import RESAMPLES, Estimate, estimate, halves, mean, resample

FEW = 24
"""The paper's claim on few features is about fewer than this many."""
YEARS = AVERAGED_YEARS.stop - AVERAGED_YEARS.start
Curve = dict[int, Float[Tensor, "template 100"]]
"""The metric of every prompt by the number of units kept, ascending."""


def by_year(values: Float[Tensor, "*other template 100"]) -> Float[np.ndarray, "*other year"]:
    """The mean over templates, of the years that are averaged."""
    return values[..., AVERAGED_YEARS].mean(dim=-2).double().numpy()


def over_years(values: Float[Tensor, "template 100"], *, seed: int) -> Estimate:
    """The mean over templates and years."""
    return mean(by_year(values), "years", seed=seed)


def few_above(first: Curve, second: Curve, *, seed: int) -> Estimate:
    """How far one curve is above another where few units are kept.

    This is the mean difference over 1 to 24 units. Straight lines join the numbers that were
    measured. A curve that ends earlier is compared to its end.
    """
    grid = np.arange(1, min(FEW, max(first), max(second)) + 1)
    heights = [_on_grid(curve, grid).mean(axis=0) for curve in (first, second)]
    return mean(heights[0] - heights[1], "years", seed=seed)


def catch_up(first: Curve, second: Curve, *, seed: int) -> Estimate:
    """The first number of units, from 1 on, at which the second curve is not below the first.

    Straight lines join the numbers that were measured. The number is infinite where the first curve
    is ahead to the end, and 1 where it is not ahead with one unit, whatever comes later.
    """
    grid = np.arange(1, min(max(first), max(second)) + 1)
    drawn = resample(YEARS, seed=seed) / YEARS
    one, other = (drawn @ _on_grid(curve, grid).T for curve in (first, second))
    behind = one <= other
    reached = np.where(behind.any(axis=1), grid[behind.argmax(axis=1)], np.inf)
    return estimate(reached, YEARS, "years", seed=seed)


def _on_grid(curve: Curve, grid: np.ndarray) -> Float[np.ndarray, "kept year"]:
    points = np.stack([by_year(values) for values in curve.values()])
    return np.stack([np.interp(grid, list(curve), column) for column in points.T], axis=1)


class Lead(NamedTuple):
    """How far one part is ahead of all others of its kind."""

    lead: Estimate
    """Its loss minus the largest loss of the others."""
    first: float
    """In which share of resamples it ranks first."""
    candidates: int
    """How many parts there are."""


def lead_of(losses: Float[np.ndarray, "part year"], chosen: int, *, seed: int) -> Lead:
    """How far the chosen part's loss by ablation is ahead, over resampled years.

    The best of the others is sought anew in each resample, so that it may be another part each
    time.
    """
    n_parts, n_years = losses.shape
    means = resample(n_years, seed=seed) @ losses.T / n_years
    ahead = means[:, chosen] - np.delete(means, chosen, axis=1).max(axis=1)
    found = estimate(ahead, n_years, "years", seed=seed)
    return Lead(found, float((ahead[1:] > 0).mean()), n_parts)


class Harmful(NamedTuple):
    """The unit that does most harm where it was sought, and the harm that it does elsewhere."""

    unit: int
    drop: Estimate


def most_harmful(drops: Float[np.ndarray, "unit template year"], *, seed: int) -> Harmful:
    """Choose the unit with the largest drop on half of the prompts, and test it on the others.

    Years are halved at random. With several templates, these are halved too, so that nothing is
    shared by the prompts that choose and those that test.
    """
    _, n_templates, n_years = drops.shape
    choosing, testing = halves(n_years, seed=seed)
    half = max(n_templates // 2, 1)
    first, second = drops[:, :half], drops[:, half:] if n_templates > 1 else drops
    unit = int(first[:, :, choosing].mean(axis=(1, 2)).argmax())
    return Harmful(unit, mean(second[unit][:, testing].mean(axis=0), "years", seed=seed))


def own_above_others(agrees: Bool[np.ndarray, "feature profile"], *, seed: int) -> Estimate:
    """How much more often features agree with their own profile than with those of the others.

    Features that share much agree together or not at all, so they cannot be resampled one by one.
    Instead, the profiles are dealt to the features anew, again and again: what this changes is how
    far chance reaches (a permutation test, turned into an interval).

    Args:
        agrees: whether feature i agrees with the profile of feature j. At least two features.
        seed: of the dealing.
    """
    n = len(agrees)
    random = np.random.default_rng(seed)
    dealt = np.stack([np.arange(n), *(random.permutation(n) for _ in range(RESAMPLES))])
    own = agrees[np.arange(n), dealt].mean(axis=1)
    above = own - (agrees.sum() - n * own) / (n * (n - 1))
    above[1:] = above[0] - above[1:]
    return estimate(above, n, "features", seed=seed)
