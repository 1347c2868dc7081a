"""The gap by amount of data, and where a line through it leads.

There are two lines at each site. **One pass**: every dictionary saw each of its tokens once, so
more tokens are also more steps. **Equal steps**: fewer tokens were repeated until there were as
many steps as with the most tokens. So along this line, only the number of different tokens varies.

The gap depends on L0. So all points of a site are compared over the range of L0 that all their
fronts cover. If there is none, each point has the range of its own two fronts.

A straight line in log2 tokens is fitted to the points of one pass. That the gap follows such a line
is an assumption, and beyond the largest amount of data nothing here can test it. Therefore no
crossing is reported beyond :data:`HORIZON` times the largest amount.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from transcoders.fronts import ANY_L0, FrontGap
from transcoders.gaps.pairs import Pair, Pairs, shared_range

HORIZON = 100
"""Times the largest amount of data. Whatever lies beyond counts as infinite."""
ONE_PASS, EQUAL_STEPS = "one pass", "equal steps"
POINT_COLUMNS = [
    "site", "model", "layer", "line", "tokens_different", "tokens_trained",
    "gap", "low", "high", "n", "resampled", "l0_low", "l0_high",
]  # fmt: skip
FIT_COLUMNS = ["site", "model", "layer", "quantity", "value", "low", "high", "n", "resampled"]


def gap_by_tokens(pairs: Pairs, *, margin: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The points of both lines at every site with several amounts of data, and what is fitted.

    Args:
        pairs: of an evaluation.
        margin: the smallest gap that matters, as a positive number.

    Returns:
        A row for each point, with columns :data:`POINT_COLUMNS`; and a row for each site and
        quantity, with columns :data:`FIT_COLUMNS`. Quantities are ``slope`` (change of the gap with
        each doubling of tokens), ``level`` (the fitted gap at the most tokens), ``curvature`` (the
        quadratic term, where there are three points: 0 on a line), ``tokens_to_margin`` and
        ``tokens_to_equal`` (where the line reaches minus the margin, and 0; infinite if never or
        beyond the horizon).
    """
    points: list[dict[str, Any]] = []
    fits: list[dict[str, Any]] = []
    for site in pairs.sites:
        whole = pairs.gaps(pairs.by_data(site))
        once = [pair for pair in whole if pair.passes == 1]
        if len(once) < 2:
            continue
        first = pairs.evaluation[pairs.evaluation["site"] == site].iloc[0]
        place = {"site": site, "model": first["model"], "layer": first["layer"]}
        equal = [pair for pair in whole if pair.same_steps(once[-1].setup.tokens_different)]
        low, high = shared_range([whole[pair] for pair in once + equal])
        within = (low, high) if low < high else ANY_L0
        for line, chosen in ((ONE_PASS, once), (EQUAL_STEPS, equal)):
            for pair, gap in pairs.gaps(chosen, within).items():
                level = pairs.level(gap)
                within_l0 = {"l0_low": gap.l0_low, "l0_high": gap.l0_high}
                row = place | pair.setup._asdict() | level._asdict() | within_l0
                points.append(row | {"line": line, "gap": level.value})
        fits += [place | row for row in _fitted(pairs, pairs.gaps(once, within), margin)]
    return pd.DataFrame(points, columns=POINT_COLUMNS), pd.DataFrame(fits, columns=FIT_COLUMNS)


def _fitted(pairs: Pairs, once: dict[Pair, FrontGap], margin: float) -> Iterator[dict[str, Any]]:
    """Least squares through the same points in every resample."""
    tokens = np.array([pair.setup.tokens_different for pair in once], dtype=float)
    gaps = list(once.values())
    draws, doublings = pairs.draws(gaps), np.log2(tokens / tokens[-1])
    level, slope = polynomial(doublings, draws, 1)
    quantities = {"slope": slope, "level": level}
    if len(once) > 2:
        quantities["curvature"] = polynomial(doublings, draws, 2)[2]
    for name, target in (("tokens_to_margin", -margin), ("tokens_to_equal", 0.0)):
        quantities[name] = tokens[-1] * _growth(level, slope, target)
    for name, values in quantities.items():
        yield {"quantity": name, **pairs.estimate(values, gaps[0])._asdict()}


def polynomial(
    x: Float[np.ndarray, " point"], draws: Float[np.ndarray, "draw point"], degree: int
) -> Float[np.ndarray, "coefficient draw"]:
    """The coefficients that fit each row of draws best (least squares), the constant first."""
    return np.linalg.pinv(np.vander(x, degree + 1, increasing=True)) @ draws.T


def _growth(
    level: Float[np.ndarray, " draw"], slope: Float[np.ndarray, " draw"], target: float
) -> Float[np.ndarray, " draw"]:
    """How many times the most tokens it takes to reach a gap from below; infinite if never."""
    rises = slope > 0
    doublings = (target - level) / np.where(rises, slope, 1)
    # A line that does not rise, and is above the target now, was there from the start.
    growth = np.where(level < target, np.inf, 0.0)
    growth = np.where(rises, 2.0 ** np.minimum(doublings, 1000), growth)
    growth = np.where(growth > HORIZON, np.inf, growth)
    return np.where(np.isnan(level), np.nan, growth)
