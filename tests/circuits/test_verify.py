"""The frozen model is linear in every scale, and its gradients are attributions over all paths."""

import pytest
import torch

from helpers_circuits import all_paths, assert_close, outputs, some_targets
from transcoders.circuits.notation import CONTRIBUTORS, Node
from transcoders.circuits.paths import Search
from transcoders.circuits.replacement import LocalReplacementModel
from transcoders.circuits.vectors import Target
from transcoders.circuits.verify import NodeValues, frozen_value, total_attributions

EVERYTHING = Search(n_paths=10**9, iterations=10, components=CONTRIBUTORS, sign="both")


def some_nodes(local: LocalReplacementModel) -> list[Node]:
    """Every eighth part of a model."""
    return list(outputs(local))[::8]


def magnitude(local: LocalReplacementModel, target: Target) -> float:
    """The size of what a target is the sum of."""
    totals = total_attributions(local, target)
    return max(abs(totals.of(node).item()) for node in outputs(local))


@torch.no_grad()
def test_with_all_scales_1_the_frozen_model_is_the_model(local: LocalReplacementModel) -> None:
    for target in some_targets(local):
        value = frozen_value(local, target, NodeValues.ones(local)).item()
        # Features of layers before pass rounding on: their sums are larger than the target.
        assert value == pytest.approx(target.value, rel=1e-5, abs=1e-5 * magnitude(local, target))


def test_input_times_gradient_is_the_sum_over_all_paths_that_end_in_a_node(
    small: LocalReplacementModel,
) -> None:
    for target in (some_targets(small)[0], some_targets(small)[-1]):
        totals = total_attributions(small, target)
        sums = dict.fromkeys(outputs(small), 0.0)
        for path in all_paths(small, target):
            sums[path.nodes[-1]] += path.attribution
        found = torch.tensor([totals.of(node).item() for node in sums])
        assert_close(found, torch.tensor(list(sums.values())))


@torch.no_grad()
def test_doubling_a_scale_moves_the_target_by_the_nodes_attribution(
    local: LocalReplacementModel,
) -> None:
    target = some_targets(local)[-1]
    totals = total_attributions(local, target)
    scale = magnitude(local, target)
    before = frozen_value(local, target, NodeValues.ones(local)).item()
    for node in some_nodes(local):
        scales = NodeValues.ones(local)
        scales.of(node).fill_(2.0)
        moved = frozen_value(local, target, scales).item() - before
        assert moved == pytest.approx(totals.of(node).item(), abs=1e-4 * scale)


def test_a_target_early_in_the_model_has_no_gradient_by_what_comes_later(
    mixed: LocalReplacementModel,
) -> None:
    target = next(t for t in some_targets(mixed) if t.node.layer == 0)
    totals = total_attributions(mixed, target)
    assert not totals.features[2].any()
    assert not totals.heads[1:].any()
    assert not totals.mlps[:, target.node.token].any()
    assert totals.embed[target.node.token] != 0


def test_nodes_that_write_nothing_have_no_attribution_of_their_own(
    mixed: LocalReplacementModel,
) -> None:
    target = some_targets(mixed)[0]
    totals = total_attributions(mixed, target)
    for node in (target.node, Node("bias", -1, -1, 3)):
        with pytest.raises(ValueError, match="writes nothing of its own"):
            totals.of(node).item()
