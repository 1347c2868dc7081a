"""Both ways to the gradients of a batch: the formula's numbers, and the same ones."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from helpers_gradients import Problem, distance, pre_activations, problem, problems
from helpers_training import ALL_KINDS, NORMALIZATIONS, plain_loss
from transcoders.config import Kind
from transcoders.dictionaries import Weights
from transcoders.training import Gradients, dense_gradients, sparse_gradients
from transcoders.training.gradients import CHUNK_ENTRIES

Compute = Callable[..., Gradients]
BOTH = pytest.mark.parametrize("compute", [dense_gradients, sparse_gradients])


def active_features(p: Problem) -> Tensor:
    """Which features of which tokens are active, by the definition."""
    z = pre_activations(p.weights, p.x, is_sae=p.objective.is_sae)
    if p.objective.k is not None:
        z = torch.where(z >= z.sort(dim=1).values[:, -p.objective.k, None], z, 0)
    return z > 0


@BOTH
@given(p=problems(), chunk=st.sampled_from([1, 7, 50, 2**22]))
def test_gradients_are_those_of_the_formula(compute: Compute, p: Problem, chunk: int) -> None:
    variables = {name: t.clone().requires_grad_() for name, t in p.weights.tensors().items()}
    loss = plain_loss(Weights(**variables), p.x, p.y, p.objective)
    expected = dict(zip(variables, torch.autograd.grad(loss, variables.values()), strict=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(CHUNK_ENTRIES, "cpu", chunk)  # more than one chunk, down to one row each
        found = compute(*p)
    # Everything is in float64, so 1e-10 leaves room for sums that cancel to a millionth.
    assert abs(found.loss - loss) <= 1e-10 * loss
    for name, gradient in expected.items():
        error = (getattr(found.by_parameter, name) - gradient).abs().max()
        assert error <= 1e-10 * gradient.abs().max(), name
    parallel = (expected["W_dec"] * p.weights.W_dec).sum(dim=1)
    assert (found.parallel - parallel).abs().max() <= 1e-10 * expected["W_dec"].norm()
    assert torch.equal(found.active, active_features(p).sum(dim=0))


@BOTH
@pytest.mark.parametrize("kind", ALL_KINDS)
def test_the_error_is_the_target_minus_the_reconstruction(compute: Compute, kind: Kind) -> None:
    p = problem(kind, 0.3, dtype=torch.float64)
    z = pre_activations(p.weights, p.x, is_sae=p.objective.is_sae) * active_features(p)
    expected = p.y - z @ p.weights.W_dec - p.weights.b_dec
    if p.weights.W_skip is not None:
        expected -= p.x @ p.weights.W_skip.T
    torch.testing.assert_close(compute(*p).error, expected)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("density", [0, 0.02, 0.2, 0.6, 1])
@pytest.mark.parametrize("kind", ALL_KINDS)
def test_sparse_equals_dense_up_to_rounding(kind: Kind, density: float, normalization: str) -> None:
    # Exact fractions of few digits: pre-activations have no rounding, so that both ways see the
    # same features active however their sums are ordered.
    p = problem(kind, density, normalization=normalization)
    for tensor in (p.x, p.weights.W_enc, p.weights.b_enc, p.weights.b_dec):
        tensor.mul_(64).round_().div_(64)
    if kind == "topk_transcoder":  # ... and no two features are equal
        p.weights.b_enc += torch.arange(80) / 2**14
    dense, sparse = dense_gradients(*p), sparse_gradients(*p)
    assert torch.equal(sparse.active, dense.active)
    if p.objective.k is None:
        assert sparse.active.sum() / (48 * 80) == pytest.approx(density, abs=0.02)
    # float32 sums of up to 80 terms that partly cancel
    assert max(distance(sparse, dense).values()) < 5e-6
    assert {t.dtype for t in sparse.by_parameter.tensors().values()} == {torch.float32}


@BOTH
@pytest.mark.parametrize("kind", ALL_KINDS)
def test_a_batch_without_an_active_feature_moves_biases_and_skip_only(
    compute: Compute, kind: Kind
) -> None:
    gradients = compute(*problem(kind, 0)).by_parameter
    assert gradients.b_dec.abs().min() > 0
    assert gradients.W_skip is None or gradients.W_skip.abs().min() > 0
    for name in ("W_enc", "b_enc", "W_dec"):
        assert not getattr(gradients, name).any(), name


@BOTH
@pytest.mark.parametrize("kind", ALL_KINDS)
@pytest.mark.parametrize("where", ["a token", "a feature"])
def test_what_is_not_a_number_reaches_the_loss(compute: Compute, kind: Kind, where: str) -> None:
    p = problem(kind, 0.2)
    (p.x[3] if where == "a token" else p.weights.W_enc[:, 5]).fill_(float("nan"))
    assert compute(*p).loss.isnan()


@BOTH
@pytest.mark.parametrize("kind", ALL_KINDS)
def test_gradients_leave_what_they_are_computed_from_alone(compute: Compute, kind: Kind) -> None:
    p, same = problem(kind, 0.3), problem(kind, 0.3)
    compute(*p)
    for tensor, before in zip(
        [p.x, p.y, *p.weights.tensors().values()],
        [same.x, same.y, *same.weights.tensors().values()],
        strict=True,
    ):
        assert torch.equal(tensor, before)
        assert not tensor.requires_grad


class LargestTensor(TorchDispatchMode):
    """Watches how many entries the largest tensor has that an operation makes."""

    entries = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else [made]:
            if isinstance(tensor, Tensor):
                self.entries = max(self.entries, tensor.numel())
        return made


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_sparse_gradients_make_no_tensor_of_batch_by_features(
    kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CHUNK_ENTRIES, "cpu", 1024)
    p = problem(kind, 0.02, n_tokens=256, d_in=4, d_out=4, n_features=512)
    p = p._replace(objective=p.objective._replace(k=None if p.objective.k is None else 8))
    with LargestTensor() as largest:
        assert sparse_gradients(*p).by_parameter.W_dec.shape == (512, 4)
    # What there must be: weights (2,048), active entries (about 2,621).
    assert 1024 <= largest.entries <= 4096
    assert largest.entries < 256 * 512 / 16


@BOTH
@pytest.mark.parametrize("kind", ALL_KINDS)
@pytest.mark.parametrize("density", [0, 0.02, 0.3])
def test_gradients_of_some_features_are_the_rows_of_those_of_all(
    compute: Compute, kind: Kind, density: float
) -> None:
    gradients = compute(*problem(kind, density))
    whole = gradients.of_features(0, 80)
    for start, stop in ((0, 1), (0, 30), (30, 31), (31, 80), (79, 80)):
        for found, expected in zip(gradients.of_features(start, stop), whole, strict=True):
            if compute is sparse_gradients:  # same sums, same terms, same order: the same bits
                assert torch.equal(found, expected[start:stop])
            torch.testing.assert_close(found, expected[start:stop])
    torch.testing.assert_close(gradients.by_parameter.W_enc, whole.W_enc.T)


@BOTH
@pytest.mark.parametrize("kind", ALL_KINDS)
def test_bf16_rounds_products_and_nothing_else(compute: Compute, kind: Kind) -> None:
    p = problem(kind, 0.3, n_tokens=128)
    # TopK keeps what is largest, and rounding swaps some features of nearly the same size.
    exact = compute(*p)
    rounded = compute(p.weights, p.x, p.y, p.objective._replace(precision="bf16"))
    for name, found in rounded.by_parameter.tensors().items():
        expected = getattr(exact.by_parameter, name)
        assert found.dtype == torch.float32
        # bf16 keeps 8 bits, 0.4% a factor; errors of a sum's terms are independent, and a few of
        # 10,000 features appear or vanish.
        assert 1e-4 < (found - expected).norm() / expected.norm() < 5e-2, name
    assert rounded.loss.dtype == rounded.error.dtype == torch.float32
    assert 0 < abs(rounded.loss / exact.loss - 1) < 1e-2


def test_a_skip_is_one_more_term_of_the_reconstruction() -> None:
    p = problem("skip_transcoder", 0.3, dtype=torch.float64)
    # Without its skip, a transcoder sees the same errors where the target lacks that term.
    assert p.weights.W_skip is not None
    without = replace(p.weights, W_skip=None)
    expected = dense_gradients(without, p.x, p.y - p.x @ p.weights.W_skip.T, p.objective)
    found = dense_gradients(*p)
    torch.testing.assert_close(found.error, expected.error)
    torch.testing.assert_close(found.by_parameter.W_dec, expected.by_parameter.W_dec)
