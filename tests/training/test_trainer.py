"""One dictionary in training: schedules, which way its steps take, and what it writes down."""

import io
import math

import pandas as pd
import pytest
import torch

from helpers_training import (
    entry,
    random_cache,
    settings,
    trainer_of,
    watch_ways,
)
from transcoders.config import TRAITS
from transcoders.training import train_group


@pytest.fixture
def ways(monkeypatch):
    """A growing list of every step's way to the gradients, ``dense`` or ``sparse``."""
    return watch_ways(monkeypatch)


def test_the_way_follows_the_density_of_the_batch_before(ways):
    # Batches whose inputs stand out from a negative b_enc, and batches that do not.
    large = [True, True, False, False, True, False, True, False, False, False]
    cache = random_cache(n_tokens=32 * len(large))
    cache.mlp_in *= torch.where(torch.tensor(large), 10.0, 0.01).repeat_interleave(32)[:, None]
    training = settings(learning_rate=1e-3, sparse_below_density=0.2)
    trainer = trainer_of("transcoder", cache, training)
    trainer.dictionary.b_enc.data.fill_(-0.5)
    for step in range(len(large)):
        trainer.step(step, cache.read(32 * step, 32 * step + 32))
    assert ways == ["dense" if one else "sparse" for one in [True, *large[:-1]]]


def logged(kind="transcoder", **changes):
    """The rows of training.csv of 20 steps."""
    training = settings(**changes)
    cache = random_cache(n_tokens=20 * training.batch_tokens)
    (result,) = train_group([entry(kind, 0.2, k=3)], cache, training, seed=0)
    return pd.read_csv(io.StringIO(result.training_csv)).to_dict("records")


def test_learning_rate_and_l1_coefficient_follow_their_schedules():
    rows = logged(warmup_steps=4, decay_fraction=0.25, l1_warmup_fraction=0.25)
    # 1/4 to 4/4 of 1e-2; constant; then 5/5, 4/5 ... 1/5, and 0 after the last step
    rates = [0.0025, 0.005, 0.0075] + [0.01] * 13 + [0.008, 0.006, 0.004, 0.002]
    assert [row["learning_rate"] for row in rows] == pytest.approx(rates, rel=1e-5)  # six digits
    coefficients = [0.04, 0.08, 0.12, 0.16] + [0.2] * 16
    assert [row["l1_coefficient"] for row in rows] == pytest.approx(coefficients, rel=1e-5)
    assert {row["learning_rate"] for row in logged()} == {0.01}


@pytest.mark.parametrize("kind", ["transcoder", "topk_transcoder", "topk_sae"])
def test_training_csv_has_means_over_the_steps_since_the_row_before(kind):
    each, coarse = logged(kind), logged(kind, log_every_steps=6)
    columns = "step tokens learning_rate l1_coefficient loss l0 fvu dead_fraction"
    assert list(each[0]) == columns.split()
    assert [row["step"] for row in coarse] == [6, 12, 18, 20]
    assert [row["tokens"] for row in coarse] == [6 * 32, 12 * 32, 18 * 32, 20 * 32]
    for first, row in zip((0, 6, 12, 18), coarse, strict=True):
        of_row = each[first : first + 6]
        for name in ("loss", "l0"):
            mean = sum(one[name] for one in of_row) / len(of_row)
            assert row[name] == pytest.approx(mean, rel=1e-4)  # six digits in the table
        assert row["dead_fraction"] <= min(one["dead_fraction"] for one in of_row) + 1e-6
    if TRAITS[kind].is_topk:
        assert all(math.isnan(row["l1_coefficient"]) for row in each)
        assert each[0]["l0"] == 3
        assert all(row["l0"] <= 3 for row in each)  # fewer where fewer are positive


def test_a_feature_that_never_fires_counts_as_dead():
    cache = random_cache(n_tokens=32)
    trainer = trainer_of("transcoder", cache, settings())
    trainer.dictionary.b_enc.data[:8] = -1e3  # no input is as large
    trainer.dictionary.b_enc.data[8:] = 1e3
    trainer.step(0, cache.read(0, 32))
    assert trainer.log[0]["dead_fraction"] == pytest.approx(8 / 32)
    assert trainer.log[0]["l0"] == pytest.approx(24)
