"""Training: the loss and its gradients, the schedules, the order of the data, what is saved."""

import csv
import io
from itertools import chain

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from helpers_training import (
    CacheInMemory,
    entry,
    numbered_cache,
    random_cache,
    settings,
    sparse_problem,
)
from transcoders.config import KINDS
from transcoders.dictionaries import SparseDictionary, Weights
from transcoders.errors import UserError
from transcoders.models import MLPActivations
from transcoders.training import (
    Scaling,
    Trainer,
    batches,
    fold_scaling,
    initial_weights,
    scaling_of,
    train_group,
)

torch.set_num_threads(1)
NORMALIZATIONS = ("none", "released")


def trainer_of(kind, cache, training, *, n_steps=10, l1_coefficient=0.1, seed=0) -> Trainer:
    return Trainer(entry(kind, l1_coefficient), cache, training, n_steps, seed, "cpu")


def randomise(trainer: Trainer) -> None:
    """Put a trainer where all parameters matter; biases start at values that hide mistakes."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, tensor in trainer.weights.tensors().items():
            tensor.copy_(0.5 * torch.randn(tensor.shape, generator=generator))
            if name == "W_dec":
                functional.normalize(tensor, dim=1, out=tensor)


def plain_loss(
    parameters: dict[str, Tensor], x: Tensor, y: Tensor, *, sae: bool, l1: float, released: bool
) -> Tensor:
    """Equations 4 and 5 of the paper token by token, in double precision."""
    total = torch.zeros((), dtype=torch.float64)
    for x_token, y_token in zip(x.double(), y.double(), strict=True):
        read = x_token - parameters["b_dec"] if sae else x_token
        z = (read @ parameters["W_enc"] + parameters["b_enc"]).clamp(min=0)
        error = y_token - (z @ parameters["W_dec"] + parameters["b_dec"])
        reconstruction = (error**2).sum()
        if released:
            reconstruction = reconstruction / (y_token**2).sum().sqrt() / len(y_token)
        total = total + reconstruction + l1 * z.abs().sum()
    return total / len(x)


def step_and_reference(kind, normalization) -> tuple[Trainer, Tensor, dict[str, Tensor]]:
    """A trainer after one step, and loss and gradients of that step by the plain formula."""
    cache = random_cache(n_tokens=32)
    trainer = trainer_of(kind, cache, settings(loss_normalization=normalization))
    randomise(trainer)
    parameters = {
        name: tensor.detach().double().requires_grad_()
        for name, tensor in trainer.weights.tensors().items()
    }
    x = cache.mlp_out if kind == "mlp_out_sae" else cache.mlp_in
    y = cache.mlp_in if kind == "mlp_in_sae" else cache.mlp_out
    loss = plain_loss(
        parameters, x, y, sae=kind != "transcoder", l1=0.1, released=normalization == "released"
    )
    loss.backward()
    trainer.step(0, cache.read(0, 32))
    return trainer, loss.detach(), parameters


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_is_the_papers_formula(kind, normalization):
    trainer, loss, _ = step_and_reference(kind, normalization)
    # float32 sums over 32 × 8 terms of like size
    assert trainer.log[0]["loss"] == pytest.approx(loss.item(), rel=1e-5)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_the_formula_without_the_decoders_parallel_part(kind, normalization):
    trainer, _, parameters = step_and_reference(kind, normalization)
    W_dec, expected = parameters["W_dec"].detach(), parameters["W_dec"].grad
    parallel = (expected * W_dec).sum(dim=1, keepdim=True) * W_dec
    assert parallel.norm() > 0.01 * expected.norm()  # there is something to remove
    for name, parameter in parameters.items():
        wanted = parameter.grad - parallel if name == "W_dec" else parameter.grad
        found = getattr(trainer.weights, name).grad.double()
        # float32 rounding, relative to the largest entry: entries are sums that cancel
        assert (found - wanted).abs().max() < 1e-5 * parameter.grad.abs().max(), name


@pytest.mark.parametrize("kind", KINDS)
def test_the_decoders_gradient_is_orthogonal_to_its_rows(kind):
    cache = random_cache()
    trainer = trainer_of(kind, cache, settings())
    for step in range(3):
        W_dec = trainer.weights.W_dec.detach().clone()
        trainer.step(step, cache.read(32 * step, 32 * step + 32))
        gradient = trainer.weights.W_dec.grad
        assert gradient.norm() > 0
        # d_model = 8 products of float32 entries
        assert (gradient * W_dec).sum(dim=1).abs().max() < 1e-5 * gradient.abs().max()


@pytest.mark.parametrize("kind", KINDS)
def test_decoder_rows_have_unit_norm_after_each_step(kind):
    cache = random_cache()
    trainer = trainer_of(kind, cache, settings(learning_rate=0.3))
    for step in range(4):
        before = trainer.weights.W_dec.detach().clone()
        trainer.step(step, cache.read(32 * step, 32 * step + 32))
        after = trainer.weights.W_dec.detach()
        torch.testing.assert_close(after.norm(dim=1), torch.ones(len(after)))
        assert not torch.equal(after, before)


@pytest.mark.parametrize("kind", KINDS)
def test_folding_the_scaling_into_the_weights_is_exact(kind):
    generator = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    trained = Weights(normal(6, 24), normal(24), normal(24, 6), normal(6))
    is_transcoder = kind == "transcoder"
    scaling = Scaling(
        input_mean=normal(6) if is_transcoder else torch.zeros(6, dtype=torch.float64),
        input_scale=0.3 if is_transcoder else 7.0,  # an SAE's target is its input
        target_scale=7.0,
        target_mean=normal(6),
    )
    x = 2 * normal(50, 6)
    raw = SparseDictionary(fold_scaling(trained, scaling), kind)
    scaled = SparseDictionary(trained, kind)
    z = scaled.encode((x - scaling.input_mean) * scaling.input_scale)
    assert 0.2 < (z > 0).double().mean() < 0.8
    torch.testing.assert_close(raw.encode(x), z / 7.0)
    torch.testing.assert_close(raw.decode(raw.encode(x)), scaled.decode(z) / 7.0)
    torch.testing.assert_close(raw.weights.W_dec, trained.W_dec, rtol=0, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_scaled_targets_have_a_mean_norm_of_the_root_of_their_dimension(kind):
    cache = random_cache()
    scaling = scaling_of(kind, cache.statistics, cache.d_model, "mean_norm")
    target = cache.mlp_in if kind == "mlp_in_sae" else cache.mlp_out
    mean_norm = (target * scaling.target_scale).norm(dim=1).mean().item()
    assert mean_norm == pytest.approx(8**0.5, rel=1e-5)  # float32


def test_a_transcoders_scaled_input_is_centred_and_an_saes_is_not():
    cache = random_cache()
    means = {
        kind: scaling_of(kind, cache.statistics, cache.d_model, "mean_norm").input_mean
        for kind in KINDS
    }
    torch.testing.assert_close(means["transcoder"], cache.mlp_in.mean(dim=0))
    assert not means["mlp_in_sae"].any()
    assert not means["mlp_out_sae"].any()


@pytest.mark.parametrize("kind", KINDS)
def test_without_normalisation_nothing_is_scaled(kind):
    cache = random_cache()
    scaling = scaling_of(kind, cache.statistics, cache.d_model, "none")
    assert (scaling.input_scale, scaling.target_scale) == (1.0, 1.0)
    assert not scaling.input_mean.any()


@pytest.mark.parametrize("normalize", ["none", "mean_norm"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_saved_dictionary_does_on_raw_activations_what_was_trained(kind, normalize):
    # One step with a learning rate of almost nothing: the logged FVU is that of the saved weights.
    cache = random_cache(n_tokens=64)
    training = settings(
        learning_rate=1e-12, batch_tokens=64, buffer_tokens=64, normalize_activations=normalize
    )
    trainer = trainer_of(kind, cache, training)
    trainer.step(0, cache.read(0, 64))
    dictionary = trainer.result().dictionary
    x = cache.mlp_out if kind == "mlp_out_sae" else cache.mlp_in
    y = cache.mlp_in if kind == "mlp_in_sae" else cache.mlp_out
    z = dictionary.encode(x)
    error = (y - dictionary.decode(z)).square().sum()
    fvu = (error / (y - y.mean(dim=0)).square().sum()).item()
    assert trainer.log[0]["fvu"] == pytest.approx(fvu, rel=1e-4)  # float32, other order of sums
    l0 = (z > 0).sum(dim=1).float().mean().item()
    assert trainer.log[0]["l0"] == pytest.approx(l0, rel=1e-2)  # rounding flips a feature near 0


@pytest.mark.parametrize("kind", KINDS)
def test_the_decoder_bias_starts_at_the_mean_of_the_target(kind):
    cache = random_cache()
    trainer = trainer_of(kind, cache, settings(normalize_activations="mean_norm"))
    target = cache.mlp_in if kind == "mlp_in_sae" else cache.mlp_out
    # b_dec of the folded weights: float32, scaled back and forth
    torch.testing.assert_close(trainer.result().dictionary.weights.b_dec, target.mean(dim=0))


def test_dictionaries_of_all_kinds_start_from_the_same_matrices():
    cache = random_cache()
    first, *others = (trainer_of(kind, cache, settings(), seed=3).weights for kind in KINDS)
    for other in others:
        for name in ("W_enc", "b_enc", "W_dec"):
            assert torch.equal(getattr(first, name), getattr(other, name))


def test_initial_weights_depend_on_the_seed_alone():
    torch.manual_seed(0)
    first = initial_weights(8, 32, torch.zeros(8), seed=1)
    torch.manual_seed(99)
    again, other = (initial_weights(8, 32, torch.zeros(8), seed=seed) for seed in (1, 2))
    assert torch.equal(first.W_enc, again.W_enc)
    assert torch.equal(first.W_dec, again.W_dec)
    assert not torch.equal(first.W_enc, other.W_enc)
    assert not torch.equal(first.W_dec, other.W_dec)


def test_initial_decoder_rows_have_unit_norm_and_the_encoder_bias_is_zero():
    b_dec = torch.arange(8.0)
    weights = initial_weights(8, 32, b_dec, seed=1)
    torch.testing.assert_close(weights.W_dec.norm(dim=1), torch.ones(32))
    assert not weights.b_enc.any()
    assert torch.equal(weights.b_dec, b_dec)
    assert (weights.W_enc.shape, weights.W_dec.shape) == ((8, 32), (32, 8))


def token_numbers(n_tokens: int, *, seed: int = 0, **changes) -> list[list[int]]:
    """The positions in the cache of the tokens of every batch."""
    training = settings(**{"batch_tokens": 10, "buffer_tokens": 40, "epochs": 3} | changes)
    numbers = []
    for batch in batches(numbered_cache(n_tokens), training, seed=seed):
        assert torch.equal(batch.mlp_in, -batch.mlp_out)  # inputs stay with their outputs
        numbers.append(batch.mlp_in[:, 0].int().tolist())
    return numbers


@pytest.mark.parametrize("n_tokens", [10, 99, 100, 107])
@pytest.mark.parametrize("buffer_tokens", [1, 10, 35, 40, 1000])
def test_every_epoch_is_a_permutation_of_all_full_batches(n_tokens, buffer_tokens):
    numbers = token_numbers(n_tokens, buffer_tokens=buffer_tokens)
    per_epoch = n_tokens // 10
    assert len(numbers) == 3 * per_epoch
    assert all(len(batch) == 10 for batch in numbers)
    for epoch in range(3):
        of_epoch = list(chain(*numbers[epoch * per_epoch : (epoch + 1) * per_epoch]))
        assert sorted(of_epoch) == list(range(per_epoch * 10))


def test_epochs_differ_in_their_order():
    numbers = token_numbers(100)
    assert numbers[:10] != numbers[10:20] != numbers[20:]


def test_the_order_is_a_function_of_the_seed():
    assert token_numbers(100, seed=1) == token_numbers(100, seed=1)
    assert token_numbers(100, seed=1) != token_numbers(100, seed=2)


def test_tokens_mix_within_a_buffer_and_not_beyond():
    numbers = token_numbers(100, epochs=1)  # buffers of 4 batches: 0-39, 40-79, 80-99
    for start, stop in ((0, 4), (4, 8), (8, 10)):
        of_buffer = list(chain(*numbers[start:stop]))
        assert sorted(of_buffer) == list(range(start * 10, stop * 10))
        assert of_buffer != sorted(of_buffer)
        assert all(max(batch) - min(batch) >= 10 for batch in numbers[start:stop])


def saved(trained) -> tuple[dict[str, bytes], str]:
    weights = {name: t.numpy().tobytes() for name, t in trained.dictionary.weights.tensors().items()}
    return weights, trained.training_csv


def test_a_group_trains_each_dictionary_as_if_it_were_alone():
    cache = random_cache()
    training = settings(normalize_activations="mean_norm", epochs=2, warmup_steps=3)
    entries = [entry("transcoder", 0.3), entry("mlp_in_sae", 0.2), entry("transcoder", 0.1)]
    together = train_group(entries, cache, training, seed=5)
    for one, result in zip(entries, together, strict=True):
        assert saved(train_group([one], cache, training, seed=5)[0]) == saved(result)
        assert result.dictionary.kind == one.kind


def test_training_twice_gives_the_same_bytes_and_another_seed_does_not():
    cache = random_cache()
    first, again, other = (
        saved(train_group([entry("transcoder")], cache, settings(), seed=seed)[0])
        for seed in (1, 1, 2)
    )
    assert first == again
    assert first[0]["W_enc"] != other[0]["W_enc"]


def test_training_does_not_depend_on_torchs_own_random_state():
    cache = random_cache()
    results = []
    for state in (0, 1):
        torch.manual_seed(state)
        results.append(saved(train_group([entry("mlp_out_sae")], cache, settings(), seed=1)[0]))
    assert results[0] == results[1]


def logged(**changes) -> list[dict[str, float]]:
    """The rows of training.csv of 20 steps."""
    training = settings(**changes)
    cache = random_cache(n_tokens=20 * training.batch_tokens)
    (result,) = train_group([entry("transcoder", 0.2)], cache, training, seed=0)
    rows = csv.DictReader(io.StringIO(result.training_csv))
    return [{key: float(value) for key, value in row.items()} for row in rows]


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
    before = trainer.weights.b_dec.detach().clone()
    trainer.step(0, cache.read(0, 32))
    moved = (trainer.weights.b_dec.detach() - before).abs()
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


def test_training_csv_has_a_row_every_so_many_steps_and_one_for_the_last():
    rows = logged(log_every_steps=6)
    columns = "step tokens learning_rate l1_coefficient loss l0 fvu dead_fraction"
    assert list(rows[0]) == columns.split()
    assert [row["step"] for row in rows] == [6, 12, 18, 20]
    assert [row["tokens"] for row in rows] == [6 * 32, 12 * 32, 18 * 32, 20 * 32]


def test_logged_values_are_means_over_the_steps_since_the_row_before():
    each, coarse = logged(), logged(log_every_steps=5)
    for index, row in enumerate(coarse):
        of_row = each[5 * index : 5 * index + 5]
        for name in ("loss", "l0"):
            mean = sum(one[name] for one in of_row) / 5
            assert row[name] == pytest.approx(mean, rel=1e-4)  # six digits in the table
        assert row["dead_fraction"] <= min(one["dead_fraction"] for one in of_row) + 1e-6


def test_a_feature_that_never_fires_counts_as_dead():
    cache = random_cache(n_tokens=32)
    trainer = trainer_of("transcoder", cache, settings())
    with torch.no_grad():
        trainer.weights.b_enc[:8] = -1e3  # no input is as large
        trainer.weights.b_enc[8:] = 1e3
    trainer.step(0, cache.read(0, 32))
    assert trainer.log[0]["dead_fraction"] == pytest.approx(8 / 32)
    assert trainer.log[0]["l0"] == pytest.approx(24)


def mean_max_cosine(true: Tensor, found: Tensor) -> float:
    """How close the nearest decoder row is to each true direction, on average."""
    return (true @ functional.normalize(found, dim=1).T).amax(dim=1).mean().item()


@pytest.mark.parametrize("kind", KINDS)
def test_training_finds_the_directions_of_a_sparse_problem(kind):
    cache, directions_in, directions_out = sparse_problem(
        n_tokens=16_384, d_model=16, n_directions=24, n_active=2, seed=0
    )
    training = settings(
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
    true = directions_in if kind == "mlp_in_sae" else directions_out
    start = trainer_of(kind, cache, training, seed=0).weights.W_dec.detach()
    (result,) = train_group([entry(kind, 0.5)], cache, training, seed=0)
    rows = list(csv.DictReader(io.StringIO(result.training_csv)))
    first, last = (float(row["fvu"]) for row in (rows[0], rows[-1]))
    # Far from what any reasonable initialisation or learning rate would change.
    assert last < 0.5 * first
    assert last < 0.2
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    found = mean_max_cosine(true, result.dictionary.weights.W_dec)
    assert found > 0.85
    assert found > mean_max_cosine(true, start) + 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_a_loss_that_is_not_finite_names_the_dictionary_and_the_numbers(kind):
    cache = random_cache()
    cache.mlp_in[40:], cache.mlp_out[40:] = float("nan"), float("nan")
    trainer = trainer_of(kind, random_cache(), settings(warmup_steps=4), l1_coefficient=0.25)
    trainer.step(0, cache.read(0, 32))
    with pytest.raises(UserError) as caught:
        trainer.step(1, cache.read(32, 64))
    message = str(caught.value)
    assert message.startswith(f"tiny_layer1_{kind}_l1-0.25: ")
    for part in ("nan", "step 1", "0.25", "0.005", "lower learning_rate"):
        assert part in message


def test_a_learning_rate_that_diverges_is_refused():
    training = settings(learning_rate=1e30, epochs=5)
    with pytest.raises(UserError, match=r"tiny_layer1_transcoder_l1-0\.1: the loss is"):
        train_group([entry("transcoder")], random_cache(), training, seed=0)


def test_activations_in_16_bits_are_trained_in_32():
    class Narrow(CacheInMemory):
        def read(self, start: int, stop: int) -> MLPActivations:
            return MLPActivations(*(tensor.half() for tensor in super().read(start, stop)))

    cache = random_cache()
    rounded = CacheInMemory(cache.mlp_in.half().float(), cache.mlp_out.half().float())
    narrow = Narrow(rounded.mlp_in, rounded.mlp_out)
    training = settings(normalize_activations="mean_norm")
    wide_result, narrow_result = (
        saved(train_group([entry("transcoder")], one, training, seed=0)[0])
        for one in (rounded, narrow)
    )
    assert wide_result == narrow_result


def test_a_step_reads_its_batch_without_changing_it():
    cache = random_cache(n_tokens=32)
    batch = cache.read(0, 32)
    copy = MLPActivations(*(tensor.clone() for tensor in batch))
    for kind in KINDS:
        trainer_of(kind, cache, settings(normalize_activations="mean_norm")).step(0, batch)
    assert torch.equal(batch.mlp_in, copy.mlp_in)
    assert torch.equal(batch.mlp_out, copy.mlp_out)
