"""Examples found in one pass are those that a look at everything finds."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from transcoders.interpretability.examples import N_BINS, FeatureExamples, bin_edges

ROWS, POSITIONS, FEATURES = 150, 9, 12
FIRST = 1


def activations(seed=0, share=0.1):
    """Sparse, with features that are never active and one that always is."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.rand(ROWS, POSITIONS, FEATURES, generator=generator) * 8
    z[torch.rand(z.shape, generator=generator) > share] = 0
    z[:, :, 3] = 0
    z[:, :, 4] += 0.5
    z[7:, :, 5] = 0  # few rows
    z[0, 0, 6], z[1, 1, 6] = 1e-9, 1e9  # beyond the histogram
    return z


def look(z, *, batch=8, seed=0, n_top=5, n_sampled=6):
    found = FeatureExamples(FEATURES, n_top=n_top, n_sampled=n_sampled, seed=seed)
    for rows in torch.arange(len(z)).split(batch):
        found.add(z[rows], rows, first_position=FIRST)
    return found


def of(table, feature, kind):
    return table[(table["feature"] == feature) & (table["kind"] == kind)]


@given(st.integers(0, 10_000), st.sampled_from([0.002, 0.02, 0.3]))
def test_examples_are_the_rows_with_the_largest_peaks_and_no_row_is_sampled_twice(seed, share):
    z = activations(seed, share)
    table = look(z).examples()
    for feature in range(FEATURES):
        peak, position = z[:, :, feature].max(dim=1)
        best = peak.argsort(descending=True, stable=True)[:5]
        best = best[peak[best] > 0]
        found = of(table, feature, "top")
        assert found["row"].tolist() == best.tolist()
        assert found["position"].tolist() == (position[best] + FIRST).tolist()
        assert found["activation"].tolist() == peak[best].tolist()
        sampled = of(table, feature, "sampled")
        assert sampled["row"].is_unique and len(sampled) == min(6, int((peak > 0).sum()))
        assert sampled["activation"].tolist() == peak[sampled["row"].tolist()].tolist()
        assert sampled["activation"].is_monotonic_decreasing


def test_every_active_row_is_drawn_as_often_as_any_other():
    z = activations(share=0.5)
    drawn = np.zeros(ROWS)
    for seed in range(150):
        rows = of(look(z, seed=seed, batch=ROWS).examples(), 4, "sampled")["row"]
        drawn[rows] += 1
    expected = 150 * 6 / ROWS  # binomial: standard deviation about sqrt(6)
    assert drawn.mean() == pytest.approx(expected)
    assert drawn.std() < 2 * np.sqrt(expected)
    assert abs(drawn[:75].sum() / drawn.sum() - 0.5) < 0.06


@pytest.mark.parametrize("batch", [1, 7])
def test_nothing_depends_on_how_the_text_is_batched(batch):
    z = activations()
    whole, parts = look(z, batch=16), look(z, batch=batch)
    pd.testing.assert_frame_equal(whole.examples(), parts.examples())
    pd.testing.assert_frame_equal(whole.features(), parts.features())


def test_counts_means_and_histograms_are_those_of_all_tokens():
    z = activations()
    table = look(z).features()
    flat = z.flatten(0, 1).T.numpy()
    assert table["n_active"].tolist() == (flat > 0).sum(axis=1).tolist()
    assert table["frequency"].tolist() == pytest.approx((flat > 0).mean(axis=1))
    assert table["largest"].tolist() == flat.max(axis=1).tolist()
    for row, values in zip(table.itertuples(), flat, strict=True):
        active = values[values > 0]
        mean = active.mean(dtype=float) if len(active) else np.nan
        assert row.mean == pytest.approx(mean, nan_ok=True, rel=1e-6)
        inside = active.clip(*bin_edges()[[0, -1]])
        assert row.histogram.tolist() == np.histogram(inside, bins=bin_edges())[0].tolist()


def test_memory_does_not_grow_with_the_text():
    z = activations()
    found = FeatureExamples(FEATURES, n_top=5, n_sampled=6, seed=0)
    sizes = set()
    for rows in torch.arange(ROWS).split(5):
        found.add(z[rows], rows, first_position=FIRST)
        sizes.add(found.n_bytes)
    # Four numbers for each example; a count, a sum and a histogram for each feature; 8 bytes each.
    assert len(sizes) == 1 and sizes.pop() <= 8 * FEATURES * (4 * (5 + 6) + 2 + N_BINS)
