"""Adam by rows is Adam."""

import pytest
import torch
from torch import Tensor

from transcoders.training.adam import AdamByRows

BETAS = (0.8, 0.99)
SHAPES = {"W": (150, 8), "W_transposed": (150, 5), "b": (150,)}


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def gradients_of(step: int) -> dict[str, Tensor]:
    """Of sizes from 1e-4 to 1e4; the first rows never have one, the next after step 0 no more."""
    gradients = {}
    for number, (name, shape) in enumerate(SHAPES.items()):
        gradient = normal(*shape, seed=1000 * number + step)
        gradient *= 10.0 ** torch.arange(-4, 5)[torch.arange(150) % 9].view(
            -1, *[1] * len(shape[1:])
        )
        gradient[:10] = 0
        if step:
            gradient[10:20] = 0
        gradients[name] = gradient
    return gradients


def learning_rate(step: int) -> float:
    return 1e-2 * min((step + 1) / 10, (100 - step) / 30, 1)


def run(block: int, n_steps: int = 100) -> tuple[dict[str, Tensor], AdamByRows]:
    parameters = {name: normal(*shape, seed=7) for name, shape in SHAPES.items()}
    optimizer = AdamByRows(parameters, BETAS)
    for step in range(n_steps):
        optimizer.begin_step()
        for start in range(0, 150, block):
            rows = slice(start, start + block)
            here = {name: gradient[rows] for name, gradient in gradients_of(step).items()}
            optimizer.update(here, learning_rate(step), rows)
    return parameters, optimizer


def test_a_hundred_steps_are_those_of_torchs_plain_adam() -> None:
    found, _ = run(block=64)
    expected = {name: normal(*shape, seed=7).double() for name, shape in SHAPES.items()}
    plain = torch.optim.Adam(expected.values(), betas=BETAS, foreach=False, fused=False)
    for step in range(100):
        for name, gradient in gradients_of(step).items():
            expected[name].grad = gradient.double()
        plain.param_groups[0]["lr"] = learning_rate(step)
        plain.step()
    for name, tensor in found.items():
        # Each step rounds to float32, 6e-8 of entries of order 1, a hundred times.
        torch.testing.assert_close(tensor.double(), expected[name], rtol=0, atol=5e-6)
        moved = (tensor - normal(*SHAPES[name], seed=7)).abs().view(150, -1).amax(dim=1)
        assert not moved[:10].any()
        assert moved[10:].min() > 0


@pytest.mark.parametrize("block", [64, 128])
def test_blocks_of_rows_change_no_byte(block: int) -> None:
    found, optimizer = run(block, n_steps=20)
    expected, in_one = run(150, n_steps=20)
    assert optimizer.steps == in_one.steps == 20
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor)
        assert torch.equal(optimizer.first_moment[name], in_one.first_moment[name])
        assert torch.equal(optimizer.second_moment[name], in_one.second_moment[name])


def test_a_row_whose_gradient_has_ended_moves_by_momentum() -> None:
    after_one, _ = run(block=64, n_steps=1)
    after_two, _ = run(block=64, n_steps=2)
    start = normal(150, 8, seed=7)
    first = (after_one["W"] - start)[10:20].norm(dim=1)
    second = (after_two["W"] - after_one["W"])[10:20].norm(dim=1)
    # By the book: m / √v is 1 at the first step and 0.8·0.2/0.36 / √(0.99·0.01/0.0199) at the next,
    # whose learning rate is twice that of the first.
    torch.testing.assert_close(second / first, torch.full((10,), 1.2602), rtol=1e-3, atol=0)
