"""What the study concludes, with intervals over decades.

Prompts of one decade share most of what the model reads, so their years are not independent. Whole
decades are resampled, with all templates together. Whatever is chosen as the best or worst of many
parts is tested against all others, or on prompts that did not choose it.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from transcoders.greater_than.task import AVERAGED_YEARS
from transcoders.statistics import RESAMPLES, Estimate, estimate, halves, mean, resample

FEW = 23
"""The paper's claim is about fewer than 24 features."""
DECADES = np.arange(AVERAGED_YEARS.start, AVERAGED_YEARS.stop) // 10
"""The decade of each year that is averaged; the first and the last one lack a year."""
N_DECADES = 10
Curve = dict[int, Float[Tensor, "template 100"]]
"""The metric of every prompt by the number of units kept, ascending."""


def by_year(values: Float[Tensor, "*other template 100"]) -> Float[np.ndarray, "*other year"]:
    """The mean over templates, of the years that are averaged."""
    return values[..., AVERAGED_YEARS].mean(dim=-2).double().numpy()


def over_years(values: Float[Tensor, "template 100"], *, seed: int) -> Estimate:
    """The mean over templates and years."""
    return _mean(by_year(values), seed=seed)


def _mean(values: Float[np.ndarray, " year"], *, seed: int) -> Estimate:
    return mean(values, "decades", clusters=DECADES, seed=seed)


def _drawn(seed: int) -> Float[np.ndarray, "draw year"]:
    """How much each year counts in the data, and in resamples of whole decades."""
    weights = resample(N_DECADES, seed=seed)[:, DECADES]
    return weights / weights.sum(axis=1, keepdims=True)


def few_above(first: Curve, second: Curve, *, seed: int) -> Estimate:
    """How far one curve is above another where few units are kept.

    This is the mean difference over 1 to 23 units. Straight lines join the numbers that were
    measured. A curve that ends earlier is compared up to its end.
    """
    grid = np.arange(1, min(FEW, max(first), max(second)) + 1)
    heights = [_on_grid(curve, grid).mean(axis=0) for curve in (first, second)]
    return _mean(heights[0] - heights[1], seed=seed)


def catch_up(first: Curve, second: Curve, *, seed: int) -> Estimate:
    """The first number of units, from 1 on, at which the second curve is not below the first.

    Straight lines join the numbers that were measured. The number is infinite where the first curve
    is ahead to the end, and 1 where it is not ahead with one unit, whatever comes later.
    """
    grid = np.arange(1, min(max(first), max(second)) + 1)
    drawn = _drawn(seed)
    one, other = (drawn @ _on_grid(curve, grid).T for curve in (first, second))
    behind = one <= other
    reached = np.where(behind.any(axis=1), grid[behind.argmax(axis=1)], np.inf)
    return estimate(reached, N_DECADES, "decades")


def _on_grid(curve: Curve, grid: np.ndarray) -> Float[np.ndarray, "kept year"]:
    points = np.stack([by_year(values) for values in curve.values()])
    return np.stack([np.interp(grid, list(curve), column) for column in points.T], axis=1)


def lead_of(
    losses: Float[np.ndarray, "part year"], chosen: int, *, seed: int
) -> Float[np.ndarray, " draw"]:
    """How far the chosen part's loss by ablation is ahead, in the data and in every resample.

    It is compared with the largest loss of the others. That part is sought anew in each resample,
    so that it may be another one each time.
    """
    means = _drawn(seed) @ losses.T
    return means[:, chosen] - np.delete(means, chosen, axis=1).max(axis=1)


def joint_lead(leads: Sequence[Float[np.ndarray, " draw"]]) -> Estimate:
    """How far several parts are all ahead: in every resample, the smallest of their leads."""
    return estimate(np.min(leads, axis=0), N_DECADES, "decades")


def drops_of(curve: Curve) -> Float[np.ndarray, "unit template year"]:
    """What each further unit takes from the metric.

    Args:
        curve: the metric at every number of units from 0 on.
    """
    values = torch.stack(list(curve.values()))[..., AVERAGED_YEARS].double()
    return (values[:-1] - values[1:]).numpy()


def most_harmful(
    drops: Float[np.ndarray, "unit template year"], *, seed: int
) -> tuple[int, Estimate]:
    """Choose the unit with the largest drop on half of the prompts, and test it on the others.

    Half of the decades choose, drawn at random, and the others test. Where there are several
    templates, these are halved too.

    Returns:
        The unit that does most harm where it was sought, and the harm that it does elsewhere.
    """
    choosing, testing = (half[DECADES] for half in halves(N_DECADES, seed=seed))
    n_templates = drops.shape[1]
    half = max(n_templates // 2, 1)
    first, second = drops[:, :half], drops[:, half:] if n_templates > 1 else drops
    unit = int(first[:, :, choosing].mean(axis=(1, 2)).argmax())
    tested = second[unit][:, testing].mean(axis=0)
    return unit, mean(tested, "decades", clusters=DECADES[testing], seed=seed)


def own_above_others(of_pairs: Float[np.ndarray, "feature other"], *, seed: int) -> Estimate:
    """How much larger a quantity is with each feature's own weights than with the others'.

    Features that share much agree together or not at all, so they cannot be resampled one by one.
    Instead, the weights are dealt to the features anew, again and again. How much the result varies
    from deal to deal gives the width of the interval (a permutation test).

    Args:
        of_pairs: the quantity, of each feature's activations with the weights of each feature. At
            least two features.
        seed: of the dealing.
    """
    n = len(of_pairs)
    random = np.random.default_rng(seed)
    dealt = np.stack([np.arange(n), *(random.permutation(n) for _ in range(RESAMPLES))])
    own = of_pairs[np.arange(n), dealt].mean(axis=1)
    above = own - (of_pairs.sum() - n * own) / (n * (n - 1))
    above[1:] = above[0] - above[1:]
    return estimate(above, n, "features")
