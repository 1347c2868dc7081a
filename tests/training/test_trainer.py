"""A step of training: the loss, Adam, and which way it takes to the gradients."""

from collections import Counter
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from helpers_training import (
    ALL_KINDS,
    NORMALIZATIONS,
    plain_loss,
    random_cache,
    settings,
    trainer_of,
)
from transcoders.config import TRAITS
from transcoders.dictionaries import Weights
from transcoders.errors import UserError
from transcoders.training import Gradients, Objective, Trainer
from transcoders.training import trainer as trainer_module


class Call(NamedTuple):
    """A step's way to the gradients, ``dense`` or ``sparse``, and what it gave."""

    way: str
    active: Tensor
    gradients: Weights


@pytest.fixture
def watched(monkeypatch) -> list[Call]:
    """A growing list of every step's call."""
    calls = []
    for way in ("dense", "sparse"):
        compute = getattr(trainer_module, f"{way}_gradients")

        def watch(*arguments, way=way, compute=compute) -> Gradients:
            given = compute(*arguments)
            tensors = {n: t.clone() for n, t in given.by_parameter.tensors().items()}
            calls.append(Call(way, given.active, Weights(**tensors)))
            return given

        monkeypatch.setattr(trainer_module, f"{way}_gradients", watch)
    return calls


def randomise(trainer: Trainer) -> None:
    """Put a trainer where all parameters matter; biases start at values that hide mistakes."""
    generator = torch.Generator().manual_seed(7)
    for name, tensor in trainer.weights.tensors().items():
        tensor.copy_(0.5 * torch.randn(tensor.shape, generator=generator))
        if name == "W_dec":
            functional.normalize(tensor, dim=1, out=tensor)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("kind", ALL_KINDS)
def test_the_loss_is_the_papers_formula(kind, normalization):
    cache = random_cache(n_tokens=32)
    trainer = trainer_of(kind, cache, settings(loss_normalization=normalization))
    randomise(trainer)
    weights = Weights(**{name: t.double() for name, t in trainer.weights.tensors().items()})
    x = cache.mlp_out if kind == "mlp_out_sae" else cache.mlp_in
    y = cache.mlp_in if kind == "mlp_in_sae" else cache.mlp_out
    k = 4 if TRAITS[kind].is_topk else None
    objective = Objective(0.0 if k else 0.1, normalization, not TRAITS[kind].is_transcoder, k)
    expected = plain_loss(weights, x.double(), y.double(), objective).item()
    trainer.step(0, cache.read(0, 32))
    # float32 sums over 32 × 8 terms of like size
    assert trainer.log[0]["loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", ALL_KINDS)
@pytest.mark.parametrize("sparse_below", [0, 0.6])
def test_a_hundred_steps_are_those_of_adam_by_the_book(kind, sparse_below, watched):
    cache = random_cache(n_tokens=3200)
    training = settings(
        adam_betas=[0.8, 0.99], warmup_steps=10, decay_fraction=0.3,
        sparse_below_density=sparse_below,
    )  # fmt: skip
    trainer = trainer_of(kind, cache, training, n_steps=100)
    trainer.weights.b_enc[:2] = -1e3  # never active
    trainer.weights.W_dec[:2] = torch.eye(8)[:2]  # of norm 1 exactly: no rounding moves it
    book = {name: tensor.double() for name, tensor in trainer.weights.tensors().items()}
    first = {name: torch.zeros_like(tensor) for name, tensor in book.items()}
    second = {name: torch.zeros_like(tensor) for name, tensor in book.items()}
    for step in range(100):
        rows = trainer.weights.W_dec.double()
        trainer.step(step, cache.read(32 * step, 32 * step + 32))
        rate = 1e-2 * min((step + 1) / 10, 1) * min((100 - step) / 30, 1)
        for name, gradient in watched[-1].gradients.tensors().items():
            g = gradient.double()
            if name == "W_dec":
                g = g - (g * rows).sum(dim=1, keepdim=True) * rows
            first[name] = 0.8 * first[name] + 0.2 * g
            second[name] = 0.99 * second[name] + 0.01 * g**2
            mean = first[name] / (1 - 0.8 ** (step + 1))
            square = second[name] / (1 - 0.99 ** (step + 1))
            book[name] = book[name] - rate * mean / (square.sqrt() + 1e-8)
        book["W_dec"] = functional.normalize(book["W_dec"], dim=1)
    assert {call.way for call in watched} == ({"dense", "sparse"} if sparse_below else {"dense"})
    for name, tensor in trainer.weights.tensors().items():
        # Each step rounds to float32, 6e-8 of entries of order 1, a hundred times.
        torch.testing.assert_close(tensor.double(), book[name], rtol=0, atol=1e-5)
    assert torch.equal(trainer.weights.W_dec[:2], torch.eye(8)[:2])


def test_a_feature_that_was_active_once_goes_on_by_momentum(watched):
    cache = random_cache(n_tokens=192)
    cache.mlp_in[:, 0] = -10
    cache.mlp_in[:32, 0] = 10
    trainer = trainer_of("transcoder", cache, settings(sparse_below_density=1))
    trainer.weights.W_enc[:, 0] = torch.eye(8)[0]
    trainer.weights.b_enc[0] = -5
    moved = []
    for step in range(6):
        before = trainer.weights.W_dec[0].clone()
        trainer.step(step, cache.read(32 * step, 32 * step + 32))
        moved.append((trainer.weights.W_dec[0] - before).norm().item())
    assert [call.active[0].item() for call in watched] == [32, 0, 0, 0, 0, 0]
    # With betas of 0.9 and 0.999, momentum fades by 0.9 a step and its divisor hardly.
    assert moved == sorted(moved, reverse=True)
    assert moved[-1] > 0.1 * moved[0] > 0


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_the_decoders_gradient_is_orthogonal_to_its_rows(kind):
    cache = random_cache()
    # Without a first moment, what Adam keeps is the last gradient.
    trainer = trainer_of(kind, cache, settings(adam_betas=[0, 0.999]))
    for step in range(3):
        W_dec = trainer.weights.W_dec.clone()
        trainer.step(step, cache.read(32 * step, 32 * step + 32))
        gradient = trainer.state()[0]["first_moment.W_dec"]
        assert gradient.norm() > 0
        # d_model = 8 products of float32 entries
        assert (gradient * W_dec).sum(dim=1).abs().max() < 1e-5 * gradient.abs().max()


@pytest.mark.parametrize("kind", ALL_KINDS)
@pytest.mark.parametrize("sparse_below", [0, 1])
def test_blocks_of_features_change_no_byte(kind, sparse_below, monkeypatch):
    cache = random_cache()
    training = settings(expansion=20, sparse_below_density=sparse_below)
    results = []
    for entries, n_rows in ((2**18, 32_768), (1, 64)):  # 160 features: 64, 64 and 32
        monkeypatch.setitem(trainer_module.BLOCK_ENTRIES, "cpu", entries)
        assert trainer_module.rows_at_a_time(8, "cpu") == n_rows
        trainer = trainer_of(kind, cache, training)
        for step in range(8):
            trainer.step(step, cache.read(32 * step, 32 * step + 32))
        results.append(trainer.state())
    (tensors, record), (in_blocks, record_in_blocks) = results
    assert repr(record_in_blocks) == repr(record)  # NaN is equal to NaN here
    assert in_blocks.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(in_blocks[name], tensor), name


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_decoder_rows_have_unit_norm_after_each_step(kind):
    cache = random_cache()
    trainer = trainer_of(kind, cache, settings(learning_rate=0.3))
    for step in range(4):
        before = trainer.weights.W_dec.clone()
        trainer.step(step, cache.read(32 * step, 32 * step + 32))
        after = trainer.weights.W_dec
        torch.testing.assert_close(after.norm(dim=1), torch.ones(len(after)))
        assert not torch.equal(after, before)


def losses(kind, cache, training, *, b_enc=0.0, l1_coefficient=0.1) -> list[float]:
    n_steps = cache.n_tokens // 32
    trainer = trainer_of(kind, cache, training, n_steps=n_steps, l1_coefficient=l1_coefficient)
    trainer.weights.b_enc.fill_(b_enc)
    for step in range(n_steps):
        trainer.step(step, cache.read(32 * step, 32 * step + 32))
    return [row["loss"] for row in trainer.log]


@pytest.mark.parametrize("kind", ["transcoder", "mlp_in_sae", "skip_transcoder"])
def test_the_way_to_the_gradients_follows_the_density_of_the_batch_before(kind, watched):
    # Batches whose inputs stand out from a negative b_enc, and batches that do not.
    large = [True, True, False, False, True, False, True, False, False, False]
    cache = random_cache(n_tokens=32 * len(large))
    cache.mlp_in *= torch.tensor([10.0 if one else 0.01 for one in large]).repeat_interleave(32)[
        :, None
    ]
    training = settings(learning_rate=1e-3, sparse_below_density=0.2)
    switching = losses(kind, cache, training, b_enc=-0.5)
    ways = [call.way for call in watched]
    before = [True, *large[:-1]]  # training starts dense
    assert ways == ["dense" if one else "sparse" for one in before]
    densities = [call.active.sum().item() / (32 * 32) for call in watched]
    assert [density > 0.2 for density in densities] == large
    watched.clear()
    dense = losses(kind, cache, settings(learning_rate=1e-3, sparse_below_density=0), b_enc=-0.5)
    assert Counter(call.way for call in watched) == {"dense": 10}
    assert switching == pytest.approx(dense, rel=1e-5)  # float32, other order of sums


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_a_run_that_becomes_sparse_has_the_losses_of_a_dense_one(kind, watched):
    cache = random_cache(n_tokens=32 * 40)
    how = {"learning_rate": 3e-3, "normalize_activations": "mean_norm"}
    training = settings(**how, sparse_below_density=0.4)
    switching = losses(kind, cache, training, l1_coefficient=1.0)
    ways = [call.way for call in watched]
    training = settings(**how, sparse_below_density=0)
    dense = losses(kind, cache, training, l1_coefficient=1.0)
    assert ways[0] == "dense"
    assert ways.count("sparse") > 10
    # float32, other order of sums: measured 1.5e-7, which forty steps may amplify
    assert switching == pytest.approx(dense, rel=1e-5)
    assert switching != dense


def test_the_first_step_is_dense_whatever_the_threshold(watched):
    losses("topk_transcoder", random_cache(), settings(sparse_below_density=1))
    assert [call.way for call in watched] == ["dense"] + ["sparse"] * 7


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_bf16_stays_close_to_float32_and_keeps_weights_and_adam_in_it(kind):
    cache = random_cache(n_tokens=32 * 10)
    found = {}
    for precision in ("float32", "bf16"):
        trainer = trainer_of(kind, cache, settings(precision=precision))
        for step in range(10):
            trainer.step(step, cache.read(32 * step, 32 * step + 32))
        found[precision] = [row["loss"] for row in trainer.log]
        tensors, _ = trainer.state()
        assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    assert found["bf16"] != found["float32"]
    # bf16 keeps 8 bits of each factor, 0.4%.
    assert found["bf16"] == pytest.approx(found["float32"], rel=2e-2)


@pytest.mark.parametrize("kind", ALL_KINDS)
@pytest.mark.parametrize("sparse_below", [0, 1])
def test_a_loss_that_is_not_finite_names_the_dictionary_and_the_numbers(kind, sparse_below):
    cache = random_cache()
    cache.mlp_in[40:], cache.mlp_out[40:] = float("nan"), float("nan")
    training = settings(warmup_steps=4, sparse_below_density=sparse_below)
    trainer = trainer_of(kind, random_cache(), training, l1_coefficient=0.25)
    trainer.step(0, cache.read(0, 32))
    with pytest.raises(UserError) as caught:
        trainer.step(1, cache.read(32, 64), last_checkpoint="some/file after step 7")
    message = str(caught.value)
    is_topk = TRAITS[kind].is_topk
    assert message.startswith(f"tiny_layer1_{kind}_{'k-4' if is_topk else 'l1-0.25'}: ")
    l1_coefficient = "L1 coefficient 0," if is_topk else "L1 coefficient 0.25,"
    for part in ("is nan at step 1 ", l1_coefficient, "learning rate 0.005)", "lower learning_rate",
                 "last good checkpoint: some/file after step 7"):  # fmt: skip
        assert part in message


def test_a_step_reads_its_batch_without_changing_it():
    cache = random_cache(n_tokens=32)
    batch = cache.read(0, 32)
    copy: list[Tensor] = [tensor.clone() for tensor in batch]
    for kind in ALL_KINDS:
        trainer_of(kind, cache, settings(normalize_activations="mean_norm")).step(0, batch)
    assert all(map(torch.equal, batch, copy))
