"""What training writes down of itself: the schedules, and the rows of training.csv."""

import csv
import io

import pytest
import torch

from helpers_training import entry, random_cache, settings, trainer_of
from transcoders.training import train_group


def logged(kind="transcoder", **changes) -> list[dict[str, float]]:
    """The rows of training.csv of 20 steps."""
    training = settings(**changes)
    cache = random_cache(n_tokens=20 * training.batch_tokens)
    (result,) = train_group([entry(kind, 0.2)], cache, training, seed=0)
    rows = csv.DictReader(io.StringIO(result.training_csv))
    return [{key: float(value or "nan") for key, value in row.items()} for row in rows]


def test_the_learning_rate_warms_up_linearly_and_decays_linearly_to_zero():
    rates = [row["learning_rate"] for row in logged(warmup_steps=4, decay_fraction=0.25)]
    # 1/4, 2/4, 3/4, 4/4 of 1e-2; constant; then 5/5, 4/5 ... 1/5, and 0 after the last step
    expected = [0.0025, 0.005, 0.0075] + [0.01] * 13 + [0.008, 0.006, 0.004, 0.002]
    assert rates == pytest.approx(expected, rel=1e-5)  # six digits in the table


def test_without_warmup_and_decay_the_learning_rate_is_constant():
    assert {row["learning_rate"] for row in logged()} == {0.01}


def test_the_first_step_moves_parameters_by_the_learning_rate_of_its_warmup():
    # Adam's first step is learning rate × sign of the gradient, whatever the gradient's size.
    cache = random_cache()
    trainer = trainer_of("transcoder", cache, settings(warmup_steps=4))
    before = trainer.weights.b_dec.clone()
    trainer.step(0, cache.read(0, 32))
    moved = (trainer.weights.b_dec - before).abs()
    torch.testing.assert_close(moved, torch.full((8,), 0.0025), rtol=1e-3, atol=0)  # Adam's epsilon


def test_the_l1_coefficient_warms_up_linearly_and_stays():
    coefficients = [row["l1_coefficient"] for row in logged(l1_warmup_fraction=0.25)]
    expected = [0.04, 0.08, 0.12, 0.16] + [0.2] * 16
    assert coefficients == pytest.approx(expected, rel=1e-5)  # six digits in the table


def test_the_loss_counts_the_l1_coefficient_of_its_own_step():
    cache = random_cache(n_tokens=32)
    losses = {}
    for fraction in (0.0, 0.5):  # at step 0 of 10: all of λ₁, and a fifth of it
        training = settings(l1_warmup_fraction=fraction)
        trainer = trainer_of("transcoder", cache, training, l1_coefficient=1.0)
        trainer.step(0, cache.read(0, 32))
        losses[fraction] = trainer.log[0]["loss"]
    trainer = trainer_of("transcoder", cache, settings())
    x_enc = cache.mlp_in @ trainer.weights.W_enc + trainer.weights.b_enc
    l1_norm = x_enc.relu().sum(dim=1).mean().item()
    assert losses[0.0] - losses[0.5] == pytest.approx(0.8 * l1_norm, rel=1e-4)  # float32


def test_topk_leaves_the_l1_coefficient_empty_and_keeps_k_features_active():
    training = settings(l1_warmup_fraction=0.25)
    cache = random_cache(n_tokens=20 * 32)
    (result,) = train_group([entry("topk_transcoder", k=3)], cache, training, seed=0)
    rows = list(csv.DictReader(io.StringIO(result.training_csv)))
    assert {row["l1_coefficient"] for row in rows} == {""}
    assert float(rows[0]["l0"]) == 3
    assert all(float(row["l0"]) <= 3 for row in rows)  # fewer where fewer are positive


def test_training_csv_has_a_row_every_so_many_steps_and_one_for_the_last():
    rows = logged(log_every_steps=6)
    columns = "step tokens learning_rate l1_coefficient loss l0 fvu dead_fraction"
    assert list(rows[0]) == columns.split()
    assert [row["step"] for row in rows] == [6, 12, 18, 20]
    assert [row["tokens"] for row in rows] == [6 * 32, 12 * 32, 18 * 32, 20 * 32]


@pytest.mark.parametrize("kind", ["transcoder", "topk_transcoder"])
def test_logged_values_are_means_over_the_steps_since_the_row_before(kind):
    each, coarse = logged(kind), logged(kind, log_every_steps=5)
    for index, row in enumerate(coarse):
        of_row = each[5 * index : 5 * index + 5]
        for name in ("loss", "l0"):
            mean = sum(one[name] for one in of_row) / 5
            assert row[name] == pytest.approx(mean, rel=1e-4)  # six digits in the table
        assert row["dead_fraction"] <= min(one["dead_fraction"] for one in of_row) + 1e-6


def test_a_feature_that_never_fires_counts_as_dead():
    cache = random_cache(n_tokens=32)
    trainer = trainer_of("transcoder", cache, settings())
    trainer.weights.b_enc[:8] = -1e3  # no input is as large
    trainer.weights.b_enc[8:] = 1e3
    trainer.step(0, cache.read(0, 32))
    assert trainer.log[0]["dead_fraction"] == pytest.approx(8 / 32)
    assert trainer.log[0]["l0"] == pytest.approx(24)
