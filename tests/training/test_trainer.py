"""Dictionaries in training: schedules, the way of a step, what is written down and found."""

import io
import math

import pandas as pd
import pytest
import torch
from torch.nn import functional

from helpers_training import (
    ALL_KINDS,
    CacheInMemory,
    entry,
    random_cache,
    saved,
    settings,
    trainer_of,
    watch_ways,
)
from transcoders.config import TRAITS
from transcoders.errors import UserError
from transcoders.training import train_group


def test_the_way_follows_the_density_of_the_batch_before(monkeypatch):
    ways = watch_ways(monkeypatch)
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


@pytest.mark.parametrize("kind", ["transcoder", "topk_sae"])
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
        assert max(row["l0"] for row in each) == 3  # fewer where fewer are positive


def test_a_feature_that_never_fires_counts_as_dead():
    cache = random_cache(n_tokens=32)
    trainer = trainer_of("transcoder", cache, settings())
    trainer.dictionary.b_enc.data[:8] = -1e3  # no input is as large
    trainer.dictionary.b_enc.data[8:] = 1e3
    trainer.step(0, cache.read(0, 32))
    assert trainer.log[0]["dead_fraction"] == pytest.approx(8 / 32)
    assert trainer.log[0]["l0"] == pytest.approx(24)


def test_fewer_tokens_than_a_batch_are_refused():
    said = r"training\.batch_tokens is 33, .* at most the 32 tokens"
    with pytest.raises(UserError, match=said):
        train_group([entry("transcoder")], random_cache(32), settings(batch_tokens=33), seed=0)


def test_a_group_trains_each_dictionary_as_if_it_were_alone():
    cache = random_cache()
    training = settings(normalize_activations="mean_norm", epochs=2, warmup_steps=3)
    entries = [entry(kind, 0.3) for kind in ALL_KINDS] + [entry("transcoder", 0.1)]
    together = train_group(entries, cache, training, seed=5)
    for one, result in zip(entries, together, strict=True):
        assert saved(train_group([one], cache, training, seed=5)[0]) == saved(result)


# Training finds what is there: the true directions of problems that were made from them.
RECOVERY = settings(
    batch_tokens=256,
    buffer_tokens=4096,
    epochs=8,
    learning_rate=5e-3,
    warmup_steps=10,
    decay_fraction=0.2,
    l1_warmup_fraction=0.1,
    normalize_activations="mean_norm",
    log_every_steps=32,
)


def sparse_problem():
    """Inputs and outputs: the same combinations of two among 24 directions of either side.

    Returns the activations and the true directions.
    """
    generator = torch.Generator().manual_seed(0)
    directions = functional.normalize(torch.randn(2, 24, 16, generator=generator), dim=-1)
    order = torch.rand(16_384, 24, generator=generator).argsort(dim=1)
    strength = 0.5 + torch.rand(16_384, 24, generator=generator)
    combination = torch.where(order < 2, strength, 0.0)
    return CacheInMemory(*(combination @ directions)), directions


def mean_max_cosine(true, found):
    """How close the nearest decoder row is to each true direction, on average."""
    return (true @ functional.normalize(found, dim=1).T).amax(dim=1).mean().item()


@pytest.mark.parametrize(
    "kind", ["transcoder", "mlp_out_sae", "mlp_in_sae", "topk_transcoder", "topk_sae"]
)
def test_training_finds_the_directions_of_a_sparse_problem(kind, monkeypatch):
    ways = watch_ways(monkeypatch)
    cache, directions = sparse_problem()
    true = directions[0 if kind == "mlp_in_sae" else 1]
    initial = trainer_of(kind, cache, RECOVERY).dictionary.W_dec
    (result,) = train_group([entry(kind, l1_coefficient=1.0, k=2)], cache, RECOVERY, seed=0)
    last = pd.read_csv(io.StringIO(result.training_csv)).iloc[-1]
    assert last["fvu"] < 0.15
    assert last["l0"] < 8  # of 64; two are true
    assert ways.count("sparse") > 0.8 * 512
    # Measured: 0.98 to 0.99 for each kind and seeds 0 to 2; the initial weights have 0.6.
    assert mean_max_cosine(true, initial) < 0.7
    assert mean_max_cosine(true, result.dictionary.W_dec) >= 0.95


@pytest.mark.parametrize("kind", ["skip_transcoder", "skip_sae"])
def test_a_skip_takes_over_what_is_affine(kind):
    generator = torch.Generator().manual_seed(3)
    x = 2 * torch.randn(8192, 16, generator=generator) + 1
    true = torch.randn(16, 16, generator=generator) / 4
    cache = CacheInMemory(x, x @ true.T + 0.5)
    (result,) = train_group([entry(kind, 1.0)], cache, RECOVERY, seed=0)
    found = result.dictionary.W_skip
    # Features cost, a skip does not: what is left to them at the end is next to nothing.
    assert (found - true).norm() < 0.05 * true.norm()
    assert pd.read_csv(io.StringIO(result.training_csv))["l0"].iloc[-1] < 0.5
