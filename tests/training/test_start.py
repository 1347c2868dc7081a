"""Where training starts, and that what is saved undoes the scaling it starts with."""

import pytest
import torch
from torch import Tensor

from helpers_training import ALL_KINDS, random_cache, settings, trainer_of
from transcoders.config import TRAITS
from transcoders.dictionaries import SparseDictionary, Weights
from transcoders.training import Scaling, fold_scaling, initial_weights, scaling_of


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_folding_the_scaling_into_the_weights_is_exact(kind):
    generator = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    trained = Weights(normal(6, 24), normal(24), normal(24, 6), normal(6))
    traits = TRAITS[kind]
    scaling = Scaling(
        input_mean=normal(6) if traits.is_transcoder else torch.zeros(6, dtype=torch.float64),
        input_scale=0.3 if traits.is_transcoder else 7.0,  # an SAE's target is its input
        target_scale=7.0,
        target_mean=normal(6),
    )
    if traits.has_skip:
        trained.W_skip = normal(6, 6)
    k = 5 if traits.is_topk else None
    x = 2 * normal(50, 6)
    raw = SparseDictionary(fold_scaling(trained, scaling), kind, k)
    scaled = SparseDictionary(trained, kind, k)
    scaled_x = (x - scaling.input_mean) * scaling.input_scale
    z = scaled.encode(scaled_x)
    assert 0.2 <= (z > 0).double().mean() < 0.8
    torch.testing.assert_close(raw.encode(x), z / 7.0)
    expected = scaled.decode(z, scaled_x) / 7.0
    torch.testing.assert_close(raw.reconstruct(x, raw.encode(x)), expected)
    torch.testing.assert_close(raw.weights.W_dec, trained.W_dec, rtol=0, atol=0)


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_scaled_targets_have_a_mean_norm_of_the_root_of_their_dimension(kind):
    cache = random_cache()
    scaling = scaling_of(kind, cache.statistics, cache.d_model, "mean_norm")
    target = cache.mlp_in if kind == "mlp_in_sae" else cache.mlp_out
    mean_norm = (target * scaling.target_scale).norm(dim=1).mean().item()
    assert mean_norm == pytest.approx(8**0.5, rel=1e-5)  # float32


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_a_transcoders_scaled_input_is_centred_and_an_saes_is_not(kind):
    cache = random_cache()
    mean = scaling_of(kind, cache.statistics, cache.d_model, "mean_norm").input_mean
    if TRAITS[kind].is_transcoder:
        torch.testing.assert_close(mean, cache.mlp_in.mean(dim=0))
    else:
        assert not mean.any()


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_without_normalisation_nothing_is_scaled(kind):
    cache = random_cache()
    scaling = scaling_of(kind, cache.statistics, cache.d_model, "none")
    assert (scaling.input_scale, scaling.target_scale) == (1.0, 1.0)
    assert not scaling.input_mean.any()


@pytest.mark.parametrize("normalize", ["none", "mean_norm"])
@pytest.mark.parametrize("kind", ALL_KINDS)
def test_the_saved_dictionary_does_on_raw_activations_what_was_trained(kind, normalize):
    # One step with a learning rate of almost nothing: the logged FVU is that of the saved weights.
    cache = random_cache(n_tokens=64)
    training = settings(
        learning_rate=1e-12, batch_tokens=64, buffer_tokens=64, normalize_activations=normalize
    )
    trainer = trainer_of(kind, cache, training)
    if trainer.weights.W_skip is not None:  # it starts at zero, which any scaling leaves as it is
        trainer.weights.W_skip.copy_(
            0.1 * torch.randn(8, 8, generator=torch.Generator().manual_seed(3))
        )
    trainer.step(0, cache.read(0, 64))
    dictionary = trainer.result().dictionary
    x = cache.mlp_out if kind == "mlp_out_sae" else cache.mlp_in
    y = cache.mlp_in if kind == "mlp_in_sae" else cache.mlp_out
    z = dictionary.encode(x)
    error = (y - dictionary.decode(z, x)).square().sum()
    fvu = (error / (y - y.mean(dim=0)).square().sum()).item()
    assert trainer.log[0]["fvu"] == pytest.approx(fvu, rel=1e-4)  # float32, other order of sums
    l0 = (z > 0).sum(dim=1).float().mean().item()
    assert trainer.log[0]["l0"] == pytest.approx(l0, rel=1e-2)  # rounding flips a feature near 0


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_the_decoder_bias_starts_at_the_mean_of_the_target(kind):
    cache = random_cache()
    trainer = trainer_of(kind, cache, settings(normalize_activations="mean_norm"))
    target = cache.mlp_in if kind == "mlp_in_sae" else cache.mlp_out
    # b_dec of the folded weights: float32, scaled back and forth
    torch.testing.assert_close(trainer.result().dictionary.weights.b_dec, target.mean(dim=0))


def test_dictionaries_of_all_kinds_start_from_the_same_matrices():
    cache = random_cache()
    first, *others = (trainer_of(kind, cache, settings(), seed=3).weights for kind in ALL_KINDS)
    for other in others:
        for name in ("W_enc", "b_enc", "W_dec"):
            assert torch.equal(getattr(first, name), getattr(other, name))


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_only_a_skip_transcoder_has_a_skip_and_it_starts_at_zero(kind):
    W_skip = trainer_of(kind, random_cache(), settings()).weights.W_skip
    assert (W_skip is not None) == (kind == "skip_transcoder")
    assert W_skip is None or (W_skip.shape == (8, 8) and not W_skip.any())


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


def test_both_matrices_lie_in_memory_feature_by_feature():
    weights = initial_weights(8, 32, torch.zeros(8), seed=1)
    assert weights.W_enc.T.is_contiguous()
    assert weights.W_dec.is_contiguous()
