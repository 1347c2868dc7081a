"""The gap by tokens: known lines are found, with intervals that are not too short either."""

import numpy as np
import pytest
from scipy import stats

from helpers_gaps import SITE, Made, tables
from transcoders.gaps import Pairs, gap_by_tokens
from transcoders.gaps.by_tokens import HORIZON
from transcoders.gaps.words import fit_in_words, tokens_in_words
from transcoders.statistics import RunNoise, with_run_noise

MARGIN = 0.027
AMOUNTS = [2**17, 2**18, 2**19, 2**20, 2**21]


def sweep(level, slope, **options):
    """One pass over each amount, on a line that has the given level at the most tokens."""
    return [
        Made(level + slope * (n - len(AMOUNTS) + 1), amount, **options)
        for n, amount in enumerate(AMOUNTS)
    ]


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


def test_equal_steps_are_another_line_than_one_pass():
    repeated = [Made(-0.05, amount, passes=2 ** (4 - n)) for n, amount in enumerate(AMOUNTS[:3])]
    others = [Made(9.0, AMOUNTS[0], passes=4), Made(9.0, AMOUNTS[1], n_features=128)]
    points, fit = compared([*sweep(-0.04, 0.02), *repeated, *others])
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
    apart = [*line[:-1], line[-1]._replace(l0=(200.0, 400.0))]
    points, _ = compared(apart)
    assert points.iloc[4][["l0_low", "l0_high"]].tolist() == pytest.approx([200.0, 400.0])
    assert points.iloc[0][["l0_low", "l0_high"]].tolist() == pytest.approx([8.0, 90.0])


def test_other_kinds_and_sites_with_one_amount_have_no_points():
    topk = sweep(0.5, 0.1, kinds=("topk_transcoder", "topk_sae"))
    alone = Made(-0.2, site="tiny_layer2")
    points, _ = compared([*sweep(-0.04, 0.02), *topk, alone])
    assert set(points["site"]) == {SITE} and points["gap"].max() < 0


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
    made = tables(map(run, [*line, *seeds]), documents=40, noise=0.05, random=random)
    _, fits = gap_by_tokens(Pairs(*made, seed=0, resamples=400), margin=MARGIN)
    slope = fits.iloc[0]
    return bool(slope["low"] <= 0.02 <= slope["high"])


@pytest.mark.full
def test_the_interval_of_the_slope_covers_it_in_about_95_of_100_data_sets():
    random = np.random.default_rng(0)
    n = 100
    found = sum(covers(random) for _ in range(n))
    low, high = stats.binom.interval(0.998, n, 0.95)
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


def test_run_noise_is_that_of_the_groups_with_several_runs():
    random = np.random.default_rng(0)
    groups = [mean + 0.3 * random.normal(size=3) for mean in random.normal(size=4000)]
    noise = RunNoise.pooled([*groups, np.array([5.0])])
    assert noise is not None and noise.df == 8000
    assert noise.sd == pytest.approx(0.3, rel=0.03)
    assert RunNoise.pooled([np.array([1.0])]) is None
    draws = with_run_noise(np.zeros((20001, 2)), [1, 3], noise, seed=0)
    assert not draws[0].any()
    assert draws.std(axis=0) == pytest.approx([noise.sd, noise.sd / 3**0.5], rel=0.03)
    assert abs(np.corrcoef(draws.T)[0, 1]) < 0.03


@pytest.mark.parametrize(
    ("low", "value", "high", "said"),
    [
        (2.5e6, 3.21e6, np.inf, "at 3.2 M tokens [2.5 M to beyond 100 times the most]"),
        (2.5e6, np.inf, np.inf, "beyond 100 times the most tokens [2.5 M to beyond 100 times "),
        (np.inf, np.inf, np.inf, "not within 100 times the most tokens"),
        (0.0, 12.0, 3e9, "at under 1 k tokens [under 1 k to 3 G]"),
        (np.nan, 4e5, np.nan, "at 400 k tokens (no interval)"),
    ],
)
def test_no_more_is_said_of_a_crossing_than_is_known(low, value, high, said):
    assert tokens_in_words({"low": low, "value": value, "high": high}).startswith(said)


def test_a_sentence_for_each_site_has_its_numbers():
    pairs = [*sweep(-0.06, 0.02), *sweep(0.01, 0.0, site="tiny_layer2")]
    _, fits = gap_by_tokens(Pairs(*tables(pairs), seed=0, resamples=100), margin=MARGIN)
    first, second = fit_in_words(fits, MARGIN).splitlines()
    assert "+0.020 [+0.020 to +0.020]" in first and "−0.027 at 6.6 M tokens" in first
    assert second.startswith("- tiny_layer2") and "+0.000" in second
