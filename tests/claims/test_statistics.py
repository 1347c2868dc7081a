"""Estimates and their intervals: laws, and textbook values."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from transcoders.statistics import (
    Estimate,
    RunNoise,
    difference_of_shares,
    estimate,
    matched_difference,
    mean,
    resample,
    share,
    with_run_noise,
)


def test_each_resample_draws_as_many_clusters_as_there_are():
    drawn = resample(7, seed=3, resamples=50)
    assert drawn.shape == (51, 7)
    assert (drawn[0] == 1).all() and (drawn.sum(axis=1) == 7).all()
    assert (drawn[1:] != 1).any()
    assert (drawn == resample(7, seed=3, resamples=50)).all()


def test_the_interval_of_a_mean_is_that_of_its_standard_error():
    values = np.random.default_rng(0).normal(size=400)
    found = mean(values, "documents", seed=1)
    assert found.value == pytest.approx(values.mean())
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)
    assert (found.n, found.resampled) == (400, "documents")


def test_values_of_one_cluster_count_as_one_draw():
    values = np.random.default_rng(0).normal(size=60)
    repeated, clusters = np.repeat(values, 5), np.repeat(np.arange(60), 5)
    assert mean(repeated, "years", clusters=clusters, seed=0) == pytest.approx(
        mean(values, "years", seed=0)
    )
    careless = mean(repeated, "years", seed=0)
    assert careless.high - careless.low < 0.6 * (2 * 1.96 * values.std() / 60**0.5)


def test_values_count_by_their_weights():
    found = mean(np.array([1.0, 0.0, 0.0]), "documents", weights=np.array([3.0, 1, 2]), seed=0)
    assert found.value == pytest.approx(0.5)
    assert found[1:3] == (0, 1)


@given(
    values=st.lists(st.floats(-100, 100), min_size=2, max_size=30),
    shift=st.floats(-50, 50),
    turned=st.booleans(),
)
@settings(max_examples=30)
def test_a_mean_moves_and_turns_with_its_values(values, shift, turned):
    before = mean(np.array(values), "x", seed=0)
    sign = -1 if turned else 1
    after = mean(sign * np.array(values) + shift, "x", seed=0)
    expected = sorted(sign * end + shift for end in before[1:3])
    assert after.value == pytest.approx(sign * before.value + shift, abs=1e-9)
    # Of 2,000 resamples, a percentile and its mirror image are neighbours.
    width = expected[1] - expected[0]
    assert after[1:3] == pytest.approx(expected, abs=0.1 * width + 1e-9)


def test_training_runs_widen_the_interval_by_students_distribution():
    # Documents say nothing here: only three runs differ.
    runs = np.array([0.0, 1.0, 2.0])
    noise = RunNoise.pooled([runs])
    drawn = with_run_noise(np.ones((20_001, 1)), [3], noise, seed=0)
    found = estimate(drawn[:, 0], 10**6, "documents")
    low, high = stats.t.interval(0.95, 2, loc=1, scale=stats.sem(runs))
    assert found.value == 1
    assert (found.low, found.high) == pytest.approx((low, high), rel=0.1)


def test_shares_have_wilsons_interval():
    # Wilson 1927, as tabulated by Newcombe 1998 (Statistics in Medicine 17, 857-872), Table I.
    assert share(81, 263, "studies")[1:3] == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert share(0, 20, "studies")[1:3] == pytest.approx((0, 0.1611), abs=5e-5)


def test_the_difference_of_shares_is_agresti_and_caffos():
    first, second = np.repeat([1.0, 0], [56, 14]), np.repeat([1.0, 0], [48, 32])
    found = difference_of_shares(first, second, "features")
    p, q = 57 / 72, 49 / 82
    half = 1.96 * (p * (1 - p) / 72 + q * (1 - q) / 82) ** 0.5
    assert found.value == pytest.approx(0.2)
    # Welch's quantile of Student's distribution is 1% above 1.96.
    assert found[1:3] == pytest.approx((p - q - half, p - q + half), abs=3e-3)
    # Groups with one value each are not certain to be equal.
    alike = difference_of_shares(np.ones(50), np.ones(50), "features")
    assert alike.low < -0.03 and alike.high > 0.03


def matched(values, strata):
    """The difference of two groups of as many members, each with a value and a stratum."""
    group = np.repeat([0, 1], len(values[0]))
    members = {"x": np.concatenate(values), "stratum": np.concatenate(strata), "group": group}
    return matched_difference(pd.DataFrame(members), "x", ["stratum"], "features")


def test_matching_removes_what_only_the_strata_explain():
    random = np.random.default_rng(0)
    strata = random.choice(3, 900, p=[0.7, 0.2, 0.1]), random.choice(3, 900, p=[0.1, 0.2, 0.7])
    values = [each * 1.0 + random.normal(scale=0.1, size=900) for each in strata]
    assert values[0].mean() - values[1].mean() < -0.9
    found = matched(values, strata)
    assert found.low < 0 < found.high and abs(found.value) < 0.03
    shifted = matched([values[0] + 0.5, values[1]], strata)
    assert shifted.value == pytest.approx(found.value + 0.5)
    assert matched(np.ones((2, 5)), [np.zeros(5), np.ones(5)]) is None  # no stratum is shared


def test_run_noise_is_pooled_over_groups_and_independent_from_number_to_number():
    random = np.random.default_rng(0)
    groups = [mean + 0.3 * random.normal(size=3) for mean in random.normal(size=4000)]
    noise = RunNoise.pooled([*groups, np.array([5.0])])
    assert noise.df == 8000 and noise.sd == pytest.approx(0.3, rel=0.03)
    assert RunNoise.pooled([np.array([1.0])]) is None
    draws = with_run_noise(np.zeros((20001, 2)), [1, 3], noise, seed=0)
    assert abs(np.corrcoef(draws.T)[0, 1]) < 0.03


@pytest.mark.parametrize("n", [5, 10, 34])
def test_intervals_of_few_clusters_hold_the_truth_as_often_as_they_say(n):
    # Plain percentiles of 5 clusters miss it in 17% of cases.
    random = np.random.default_rng(0)
    found = [mean(random.normal(size=n), "decades", seed=seed) for seed in range(400)]
    missed = sum(not each.low <= 0 <= each.high for each in found)
    assert missed / 400 < 0.11


def test_one_cluster_has_no_interval_and_what_is_not_a_number_is_null_in_a_record():
    found = mean(np.array([1.0, 2.0]), "documents", clusters=["a", "a"], seed=0)
    assert found.value == 1.5 and np.isnan([found.low, found.high]).all()
    record = found._replace(high=np.inf).record()
    assert list(record.values()) == [1.5, None, None, 1, "documents"]
    assert Estimate.of_record(record)[:1] == (1.5,)
