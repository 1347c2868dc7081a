"""Initial weights, and that what is saved undoes the scaling of training."""

import pytest
import torch

from helpers_gradients import problem
from helpers_training import ALL_KINDS, random_cache, settings, trainer_of
from transcoders.config import TRAITS
from transcoders.training.initialization import Scaling, fold_scaling, initial_dictionary

OF_ALL_KINDS = pytest.mark.parametrize("kind", ALL_KINDS)


@OF_ALL_KINDS
def test_folding_the_scaling_into_the_weights_is_exact(kind):
    p = problem(kind, 0.4, dtype=torch.float64)
    is_transcoder = TRAITS[kind].is_transcoder
    mlp_in = p.x if p.mlp_in is None else p.mlp_in
    scaling = Scaling(mlp_in[0], 0.3, target_mean=p.y[0], target_scale=7.0)
    raw = fold_scaling(p.dictionary, scaling)
    scaled_mlp_in = (mlp_in - mlp_in[0]) * 0.3
    scaled_x = scaled_mlp_in if is_transcoder else 7.0 * p.x  # an SAE's target is its input
    torch.testing.assert_close(raw.encode(p.x), p.dictionary.encode(scaled_x).detach() / 7.0)
    trained = p.dictionary(scaled_x, scaled_mlp_in).detach()
    torch.testing.assert_close(raw(p.x, mlp_in), trained / 7.0)
    assert torch.equal(raw.W_dec, p.dictionary.W_dec)


@pytest.mark.parametrize("normalize", ["none", "mean_norm"])
@OF_ALL_KINDS
def test_the_saved_dictionary_does_on_raw_activations_what_was_trained(kind, normalize):
    # One step with a learning rate of almost nothing: the logged FVU is that of the saved weights.
    cache = random_cache(n_tokens=64)
    training = settings(
        learning_rate=1e-12, batch_tokens=64, buffer_tokens=64, normalize_activations=normalize
    )
    trainer = trainer_of(kind, cache, training)
    x, y = getattr(cache, TRAITS[kind].reads), getattr(cache, TRAITS[kind].imitates)
    if normalize == "mean_norm":  # the root of the dimension is the norm of a scaled target
        mean_norm = (y * trainer.scaling.target_scale).norm(dim=1).mean().item()
        assert mean_norm == pytest.approx(8**0.5, rel=1e-5)  # float32
        torch.testing.assert_close(trainer.scaling.mlp_in_mean, cache.mlp_in.mean(dim=0))
    # At first, b_dec is the target's mean: float32, scaled back and forth.
    torch.testing.assert_close(trainer.result().dictionary.b_dec, y.mean(dim=0))
    if trainer.dictionary.W_skip is not None:  # zero at first, which no scaling changes
        skip = torch.randn(8, 8, generator=torch.Generator().manual_seed(3))
        trainer.dictionary.W_skip.data.copy_(skip)
    trainer.step(0, cache.read(0, 64))
    dictionary = trainer.result().dictionary
    fvu = (y - dictionary(x, cache.mlp_in)).square().sum() / (y - y.mean(dim=0)).square().sum()
    assert trainer.log[0]["fvu"] == pytest.approx(fvu.item(), rel=1e-4)  # float32, other order


def test_dictionaries_of_all_kinds_start_from_the_same_matrices():
    torch.manual_seed(99)  # which changes nothing
    b_dec = torch.arange(8.0)
    first, *others = (
        initial_dictionary(kind, 32, b_dec, seed=1, k=4 if TRAITS[kind].is_topk else None)
        for kind in ALL_KINDS
    )
    for other in others:
        assert torch.equal(first.W_enc, other.W_enc) and torch.equal(first.W_dec, other.W_dec)
    torch.testing.assert_close(first.W_dec.norm(dim=1), torch.ones(32))
    assert torch.equal(first.b_dec, b_dec) and not first.b_enc.any()
    other = initial_dictionary("transcoder", 32, b_dec, seed=2)
    assert not torch.equal(other.W_dec, first.W_dec)
