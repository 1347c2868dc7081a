"""A batch in parts: the same gradients, with less in memory."""

import weakref
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from helpers_gradients import Problem, distance, problem, problems
from helpers_training import ALL_KINDS, random_cache, settings, trainer_of
from transcoders.training import Gradients, dense_gradients, sparse_gradients
from transcoders.training import micro_batches as module
from transcoders.training.micro_batches import gradients_in_parts

Compute = Callable[..., Gradients]
BOTH = pytest.mark.parametrize("compute", [dense_gradients, sparse_gradients])


@BOTH
@given(p=problems(), n_parts=st.integers(1, 4), at_a_time=st.sampled_from([1, 7, 4096]))
def test_gradients_are_those_of_the_whole_batch(
    compute: Compute, p: Problem, n_parts: int, at_a_time: int
) -> None:
    x, y = (torch.cat([t + 0.1 * part for part in range(n_parts)]) for t in (p.x, p.y))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "FEATURES_AT_A_TIME", at_a_time)
        found = gradients_in_parts(compute, p.weights, x, y, p.objective, len(p.x))
    expected = compute(p.weights, x, y, p.objective)
    # Sums of float64 in another order.
    assert max(distance(found, expected).values()) < 1e-9
    assert torch.equal(found.active, expected.active)
    assert found.error.shape == expected.error.shape


@pytest.mark.parametrize("tokens_at_a_time", [None, 48, 1000])
def test_one_part_is_the_batch_itself(tokens_at_a_time: int | None) -> None:
    p = problem("transcoder", 0.3)
    found = gradients_in_parts(dense_gradients, p.weights, p.x, p.y, p.objective, tokens_at_a_time)
    expected = dense_gradients(*p)
    for name, tensor in expected.by_parameter.tensors().items():
        assert torch.equal(found.by_parameter.tensors()[name], tensor)


@pytest.mark.parametrize("kind", ALL_KINDS)
@pytest.mark.parametrize("sparse_below", [0, 1])
def test_training_goes_the_same_way(kind, sparse_below):
    cache = random_cache()
    trainers = [
        trainer_of(
            kind,
            cache,
            settings(sparse_below_density=sparse_below, micro_batch_tokens=micro_batch_tokens),
        )
        for micro_batch_tokens in (None, 8)
    ]
    for step in range(8):
        for trainer in trainers:
            trainer.step(step, cache.read(32 * step, 32 * step + 32))
    whole, in_parts = (trainer.state()[0] for trainer in trainers)
    assert whole.keys() == in_parts.keys()
    for name in whole:
        torch.testing.assert_close(in_parts[name], whole[name], rtol=1e-3, atol=1e-4)


def test_no_more_than_one_part_has_its_features_in_memory():
    p = problem("transcoder", 0.3)
    alive = []

    def watched(*arguments):
        alive.append(sum(reference() is not None for reference in references))
        gradients = dense_gradients(*arguments)
        z = next(
            cell.cell_contents
            for cell in gradients.of_features.__closure__
            if isinstance(cell.cell_contents, torch.Tensor) and cell.cell_contents.shape == (80, 12)
        )
        references.append(weakref.ref(z))
        return gradients

    references: list[weakref.ref] = []
    gradients_in_parts(watched, p.weights, p.x, p.y, p.objective, 12)
    assert alive == [0, 0, 0, 0]


def test_parts_must_divide_the_batch():
    with pytest.raises(ValidationError, match="expected a divisor of batch_tokens"):
        settings(batch_tokens=32, micro_batch_tokens=12)
