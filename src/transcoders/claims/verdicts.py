"""From a measured value with its interval to a verdict.

A claim of *superiority* (the value is beyond a threshold) is reproduced only if the whole 95%
interval is beyond it, and partly if the value is but the interval is not. A claim of *no
inferiority* (the value is not short of the threshold) is reproduced if the value is not short of
it, partly if it is but the interval reaches the threshold, so that no difference is shown, and not
reproduced if the whole interval is short of it. A measure without an interval is its own interval.
"""

from typing import Literal, NamedTuple

Verdict = Literal["reproduced", "partly", "not reproduced", "not testable at this scale"]


class Measured(NamedTuple):
    """A value with its 95% interval."""

    value: float
    low: float
    high: float

    @classmethod
    def exactly(cls, value: float) -> "Measured":
        """A value that has no interval."""
        return cls(value, value, value)


class Untestable(NamedTuple):
    """Why a scale cannot decide a claim."""

    reason: str


def verdict(
    measured: Measured | Untestable,
    *,
    better_than: float | None,
    no_worse_than: float | None,
    smaller_is_better: bool,
) -> Verdict:
    """Judge a claim; exactly one of the two thresholds is given."""
    if isinstance(measured, Untestable):
        return "not testable at this scale"
    value, low, high = measured
    if smaller_is_better:
        value, low, high = -value, -high, -low
    sign = -1 if smaller_is_better else 1
    if better_than is not None:
        threshold = sign * better_than
        if low > threshold:
            return "reproduced"
        return "partly" if value > threshold else "not reproduced"
    assert no_worse_than is not None
    threshold = sign * no_worse_than
    if value >= threshold:
        return "reproduced"
    return "partly" if high >= threshold else "not reproduced"
