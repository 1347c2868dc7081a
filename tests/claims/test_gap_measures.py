"""Claims about the gap at equal L0, on tables with gaps that are known."""

import pytest

from helpers_gaps import Made, tables
from transcoders.claims.gaps import front_gap, gap_of_largest_over_smallest_model


@pytest.mark.parametrize(
    ("gaps", "trained"), [([0.04], "one training run"), ([0.01, 0.06], "mean of 2 training runs")]
)
def test_a_gap_is_the_mean_of_its_training_runs_and_says_how_many(scale, gaps, trained):
    site = scale.sites[0]
    runs = [Made(gap, seed=seed, site=site.name) for seed, gap in enumerate(gaps, start=42)]
    found = front_gap(scale, *tables(runs), site=site)
    assert found.estimate.value == pytest.approx(sum(gaps) / len(gaps))
    assert found.note == f"{trained}; L0 from 8 to 90"


def test_the_gain_of_the_largest_model_is_counted_from_that_of_the_smallest(scale):
    smallest, _, largest = sorted(
        scale.sites, key=lambda site: scale.models[site.model].n_parameters()
    )
    made = [Made(0.02, site=smallest.name), Made(0.05, site=largest.name)]
    found = gap_of_largest_over_smallest_model(scale, *tables(made, noise=0.01))
    assert found.estimate.low < found.estimate.value < found.estimate.high
    assert found.estimate.value == pytest.approx(0.03, abs=0.005)
