"""What the study concludes, with intervals over years.

Years are resampled with all templates of a year together, since a model may know some years and not
others. Whatever is chosen as the best or worst of many parts is tested against all others, or on
prompts that did not choose it.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from transcoders.statistics import RESAMPLES, Estimate, estimate, halves, mean, resample


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
