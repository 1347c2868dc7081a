"""The gap by tokens: known lines are found, with intervals that are not too short either."""

import numpy as np
import pytest
from scipy import stats

from helpers_gaps import SITE, Made, tables
from transcoders.gaps import Pairs, gap_by_tokens
from transcoders.gaps.by_tokens import HORIZON
from transcoders.gaps.words import tokens_in_words

MARGIN = 0.027
AMOUNTS = [2**17, 2**18, 2**19, 2**20, 2**21]


def sweep(level, slope, **options):
    """One pass over each amount, on a line that has the given level at the most tokens."""
    return [Made(level + slope * (n - 4), amount, **options) for n, amount in enumerate(AMOUNTS)]


def compared(pairs, *, resamples=200, **options):
    """The points, and the rows of the fit by quantity."""
    made = tables(pairs, **options)
    points, fits = gap_by_tokens(Pairs(*made, seed=0, resamples=resamples), margin=MARGIN)
    return points, {row["quantity"]: row for _, row in fits.iterrows()}


@pytest.mark.parametrize(("level", "slope"), [(-0.06, 0.02), (-0.06, -0.01), (0.05, 0.01)])
def test_a_line_is_given_back(level, slope):
    points, fit = compared(sweep(level, slope))
    assert points["tokens_different"].tolist()[:5] == AMOUNTS
    ends = ["value", "low", "high"]
    assert fit["level"][ends].tolist() == pytest.approx([level] * 3)
    assert fit["slope"][ends].tolist() == pytest.approx([slope] * 3)
    assert fit["curvature"][ends].tolist() == pytest.approx([0] * 3, abs=1e-9)
    for name, target in (("tokens_to_margin", -MARGIN), ("tokens_to_equal", 0.0)):
        reached = np.inf if slope < 0 else AMOUNTS[-1] * 2 ** ((target - level) / slope)
        assert fit[name][ends].tolist() == pytest.approx([reached] * 3)


def test_what_is_beyond_the_horizon_is_not_extrapolated_to():
    doublings = np.log2(HORIZON)
    for beyond, end in ((0.01, np.inf), (-0.01, HORIZON * AMOUNTS[-1])):
        _, fit = compared(sweep(-0.001 * (doublings + beyond), 0.001))
        assert fit["tokens_to_equal"]["value"] == pytest.approx(end, rel=0.01)
    _, fit = compared(sweep(0.05, -0.01))  # it falls, and was above its target from the start
    assert fit["tokens_to_equal"]["value"] == 0


def test_a_bend_is_seen_in_the_quadratic_term():
    bent = [Made(-0.1 + 0.01 * n**2, amount) for n, amount in enumerate(AMOUNTS)]
    assert compared(bent)[1]["curvature"]["value"] == pytest.approx(0.01)


def test_equal_steps_are_another_line_than_one_pass_and_other_pairs_are_on_neither():
    repeated = [Made(-0.05, amount, passes=2 ** (4 - n)) for n, amount in enumerate(AMOUNTS[:3])]
    others = [
        Made(9.0, AMOUNTS[0], passes=4), Made(9.0, AMOUNTS[1], n_features=128),
        *sweep(0.5, 0.1, kinds=("topk_transcoder", "topk_sae")), Made(-0.2, site="tiny_layer2"),
    ]  # fmt: skip
    points, fit = compared([*sweep(-0.04, 0.02), *repeated, *others])
    assert set(points["site"]) == {SITE}
    lines = dict(iter(points.groupby("line")))
    assert lines["one pass"]["gap"].tolist() == pytest.approx([-0.12, -0.10, -0.08, -0.06, -0.04])
    assert lines["equal steps"]["gap"].tolist() == pytest.approx([-0.05, -0.05, -0.05, -0.04])
    assert lines["equal steps"]["tokens_different"].tolist() == [*AMOUNTS[:3], AMOUNTS[-1]]
    assert set(lines["equal steps"]["tokens_trained"]) == {AMOUNTS[-1]}
    assert fit["slope"]["value"] == pytest.approx(0.02)


def test_all_points_are_compared_over_the_same_l0():
    line = sweep(-0.04, 0.02)
    denser = [pair._replace(l0=(20.0 - n, 50.0, 100.0 + n)) for n, pair in enumerate(line)]
    points, _ = compared(denser)
    assert points["l0_low"].tolist() == pytest.approx([20.0] * len(points))
    assert points["l0_high"].tolist() == pytest.approx([100.0] * len(points))
    points, _ = compared([*line[:-1], line[-1]._replace(l0=(200.0, 400.0))])
    assert points.loc[[0, 4], "l0_low"].tolist() == pytest.approx([8.0, 200.0])


def test_seeds_widen_the_interval_of_the_slope():
    line = sweep(-0.04, 0.02)
    seeds = [Made(-0.04 + error, AMOUNTS[-1], seed=s) for s, error in ((1, 0.01), (2, -0.01))]
    _, one = compared(line, noise=0.01)
    points, three = compared([*line, *seeds], noise=0.01)
    widths = [fit["slope"]["high"] - fit["slope"]["low"] for fit in (one, three)]
    assert widths[1] > 2 * widths[0]
    assert {*points["resampled"], three["slope"]["resampled"]} == {"documents, training runs"}


def covers(random):
    """Whether the interval of the slope has the truth in it, in one data set made by chance."""

    def run(pair):
        return pair._replace(gap=pair.gap + 0.02 * random.normal())

    line = sweep(-0.04, 0.02)
    seeds = [line[-1]._replace(seed=seed) for seed in (1, 2, 3)]
    made = map(run, [*line, *seeds])
    _, fit = compared(made, resamples=400, documents=40, noise=0.05, random=random)
    return bool(fit["slope"]["low"] <= 0.02 <= fit["slope"]["high"])


@pytest.mark.full
def test_the_interval_of_the_slope_covers_it_in_about_95_of_100_data_sets():
    random = np.random.default_rng(0)
    found = sum(covers(random) for _ in range(100))
    low, high = stats.binom.interval(0.998, 100, 0.95)
    assert low <= found <= high


def test_documents_of_all_points_are_drawn_together():
    # What makes a document easier for transcoders at every amount changes no slope.
    made = tables(sweep(-0.04, 0.02))
    easier = made[1]["dictionary"].str.contains("_transcoder_")
    help_of = dict(enumerate(np.random.default_rng(1).normal(scale=0.3, size=60)))
    made[1]["ce"] -= made[1]["document"].map(help_of).where(easier, 0)
    _, fits = gap_by_tokens(Pairs(*made, seed=0, resamples=200), margin=MARGIN)
    slope, level = fits.iloc[0], fits.iloc[1]
    assert slope["high"] - slope["low"] < 1e-9
    assert level["high"] - level["low"] > 0.1


@pytest.mark.parametrize(
    ("low", "value", "high", "said"),
    [
        (2.5e6, 3.21e6, np.inf, "at 3.2 M tokens [2.5 M to beyond 100 times the most]"),
        (np.inf, np.inf, np.inf, "not within 100 times the most tokens"),
        (np.nan, 4e5, np.nan, "at 400 k tokens (no interval)"),
    ],
)
def test_no_more_is_said_of_a_crossing_than_is_known(low, value, high, said):
    assert tokens_in_words({"low": low, "value": value, "high": high}).startswith(said)
