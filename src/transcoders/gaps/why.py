"""Why transcoders lose: one factor at a time, at every site that has controls.

Most factors are **changed**: the gap of two pairs that differ in nothing else is compared, over the
range of L0 that all four fronts cover, with every document drawn alike for both. Others can only be
**looked at** in both kinds at equal L0. A look can refute a cause and never prove one.

The rule was written down before any result. ``margin`` and ``needs`` are those of the claim that
transcoders are no worse.

1. There is nothing to explain unless the whole interval of the gap before is below 0, and nothing
   is said with fewer documents than that claim needs: **cannot tell**.
2. The factor changes the gap by less than the margin, even at the upper end: **no**.
3. The change is above 0 even at the lower end. **yes** if after it transcoders are no worse, as the
   claim is judged (the gap is above minus the margin even at the lower end), else **partly**.
4. Otherwise **cannot tell**.

A level is said not to explain the gap if transcoders are worse in it by less than
:data:`LEVEL_MARGIN`, even at the far end. Chance between training runs is said not to explain it
if the gap is below 0 even with the variation between training runs counted in.
"""

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from transcoders.fronts import levels_at_equal_l0
from transcoders.gaps.pairs import Pair, Pairs, shared_range
from transcoders.statistics import Estimate, mean_of_runs

TOPK: tuple[str, str] = ("topk_transcoder", "topk_sae")
SKIP: tuple[str, str] = ("skip_transcoder", "skip_sae")
LEVEL_MARGIN = 0.05
"""One feature in twenty dead, or a twentieth of the norm lost: a difference that could matter."""
LEVELS = {
    "norm kept": ("l2_ratio", "norm of the output over that of the target", -1),
    "dead features": ("dead_fraction", "share of features that never fired", 1),
}
"""What is only looked at: the column, what it is, and 1 where more of it is worse, -1 if better."""
GAP = "gap"
WHY_COLUMNS = [
    "site", "factor", "comparison", "measure", "before", "after", "change", "low", "high", "n",
    "resampled", "share_of_gap", "explains",
]  # fmt: skip
Answer = Literal["yes", "no", "partly", "cannot tell"]


class Control(NamedTuple):
    """A factor that was changed, and the two pairs that differ in it."""

    factor: str
    before: Pair
    after: Pair


def why(pairs: Pairs, *, margin: float, needs: int) -> pd.DataFrame:
    """One row for each factor, or for each width, at each site that has controls.

    Args:
        pairs: of an evaluation.
        margin: the smallest gap that matters.
        needs: how many documents it takes to find one.

    Returns:
        Columns :data:`WHY_COLUMNS`, no row if no site has a control. The first row of a site is the
        gap that is to be explained: that of the most tokens, one pass. ``before`` and ``after`` are
        in the unit of the ``measure``; for a level, they are the SAE's and the transcoder's.
        ``share_of_gap`` is the share of ``before`` that the change undoes, where ``before`` is
        below 0.
    """
    rows = [
        {"site": site} | row
        for site in pairs.sites
        if (controls := list(_controls(pairs, site)))
        for row in _of_site(pairs, site, controls, margin, needs)
    ]
    return pd.DataFrame(rows, columns=WHY_COLUMNS)


def _of_site(
    pairs: Pairs, site: str, controls: list[Control], margin: float, needs: int
) -> Iterator[dict[str, Any]]:
    # The pair that is to be explained: of the most tokens, one pass if there is one.
    by_data = pairs.by_data(site)
    pair = ([pair for pair in by_data if pair.passes == 1] or by_data)[-1]
    yield from _the_gap(pairs, pair)
    for control in controls:
        yield from _changed(pairs, control, margin, needs)
    yield from _levels(pairs, pair)


def explains(
    before: Estimate, after: Estimate, change: Estimate, *, margin: float, needs: int
) -> Answer:
    """Whether changing a factor explains the gap before."""
    if not before.high < 0 or change.n < needs:
        return "cannot tell"
    if change.high < margin:
        return "no"
    if change.low > 0:
        return "yes" if after.low > -margin else "partly"
    return "cannot tell"


def _controls(pairs: Pairs, site: str) -> Iterator[Control]:
    """Every factor that a site's dictionaries can tell apart."""
    by_data = pairs.by_data(site)
    once = {pair.setup.tokens_different: pair for pair in by_data if pair.passes == 1}
    if len(once) > 1:
        *fewer, most = once.values()
        yield Control("data", fewer[0], most)
        repeated = [
            pair for pair in by_data
            if pair.passes > 1 and pair.same_steps(most.setup.tokens_trained)
        ]  # fmt: skip
        for pair in repeated[:1]:
            if fewest := once.get(pair.setup.tokens_different):
                yield Control("steps", fewest, pair)
            yield Control("data at equal steps", pair, most)
    plain = {pair.setup: pair for pair in pairs.of(site)}
    for wide in plain.values():
        alike = [pair for pair in plain.values() if pair.setup[1:] == wide.setup[1:]]
        narrowest = min(alike, key=lambda pair: pair.setup.n_features)
        if narrowest != wide:
            yield Control("width", narrowest, wide)
    for factor, kinds in (("shrinkage", TOPK), ("affine part", SKIP)):
        both = [pair for pair in pairs.of(site, kinds) if pair.setup in plain]
        for pair in both[-1:]:
            yield Control(factor, plain[pair.setup], pair)


def _row(
    factor: str, comparison: str, measure: str, change: Estimate, **others: Any
) -> dict[str, Any]:
    estimate = change._asdict()
    return {
        "factor": factor, "comparison": comparison, "measure": measure,
        "change": estimate.pop("value"), **estimate, **others,
    }  # fmt: skip


def _the_gap(pairs: Pairs, pair: Pair) -> Iterator[dict[str, Any]]:
    """What is to be explained, and how much of it is chance between training runs."""
    gap = pairs.gap(pair)
    if gap is None:
        return
    found = pairs.level(gap)
    comparison = f"{_in_words(pair, pair)}, L0 {gap.l0_low:.0f} to {gap.l0_high:.0f}"
    yield _row(GAP, comparison, GAP, found, after=found.value)
    if pairs.noise is not None:
        yield _row(
            "training seeds",
            "the same pair trained again",
            "standard deviation of the gap",
            pairs.noise.estimate(),
            before=found.value,
            explains="no" if found.high < 0 else "cannot tell",
        )


def _changed(pairs: Pairs, control: Control, margin: float, needs: int) -> Iterator[dict[str, Any]]:
    gaps = pairs.gaps(control[1:])
    if len(gaps) < 2:
        return
    low, high = shared_range(gaps.values())
    at_equal_l0 = list(pairs.gaps(gaps, (low, high)).values())
    if len(at_equal_l0) < 2:  # the two gaps are at different L0
        return
    draws = pairs.draws(at_equal_l0).T
    before, after, change = (
        pairs.estimate(values, at_equal_l0[0]) for values in (*draws, draws[1] - draws[0])
    )
    yield _row(
        control.factor,
        f"{_in_words(control.before, control.after)}, L0 {low:.0f} to {high:.0f}",
        GAP,
        change,
        before=before.value,
        after=after.value,
        share_of_gap=change.value / -before.value if before.high < 0 else np.nan,
        explains=explains(before, after, change, margin=margin, needs=needs),
    )


def _levels(pairs: Pairs, pair: Pair) -> Iterator[dict[str, Any]]:
    """What both kinds are like at equal L0, in the pair that is to be explained."""
    for factor, (column, measure, worse) in LEVELS.items():
        found = levels_at_equal_l0(pairs.evaluation, pair.site, column, pair.setup)
        if found is None:
            continue
        transcoder, sae = found
        excess = mean_of_runs(worse * (transcoder - sae))
        yield _row(
            factor,
            f"SAE → transcoder, {_in_words(pair, pair)}",
            measure,
            mean_of_runs(transcoder - sae),
            before=sae.mean(),
            after=transcoder.mean(),
            explains="no" if excess.high < LEVEL_MARGIN else "cannot tell",
        )


def _in_words(before: Pair, after: Pair) -> str:
    """What differs between two pairs, and what they share; or what a pair is, given twice."""
    if before.kinds != after.kinds:
        return f"plain → {after.kinds[0].partition('_')[0]}, {_in_words(after, after)}"
    passes = "pass" if before.passes == after.passes == 1 else "passes"
    numbers = (
        (before.setup.n_features, after.setup.n_features, "features"),
        (before.setup.tokens_different, after.setup.tokens_different, "tokens"),
        (before.passes, after.passes, passes),
    )
    return ", ".join(f"{a:,}{'' if a == b else f' → {b:,}'} {unit}" for a, b, unit in numbers)
