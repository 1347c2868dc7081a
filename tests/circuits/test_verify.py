"""The frozen model is linear in every scale, and its gradients are attributions over all paths."""

import pytest
import torch

from helpers_circuits import all_paths, assert_close, number_of, outputs, some_targets
from transcoders.circuits.verify import TotalAttributions, frozen_value, unit_scales


def magnitude(local, target):
    """The size of what a target is the sum of."""
    totals = TotalAttributions(local, target)
    return max(abs(number_of(totals, node)) for node in outputs(local))


def test_input_times_gradient_is_the_sum_over_all_paths_that_end_in_a_node(small):
    for target in (some_targets(small)[0], some_targets(small)[-1]):
        totals = TotalAttributions(small, target)
        sums = dict.fromkeys(outputs(small), 0.0)
        for path in all_paths(small, target):
            sums[path.nodes[-1]] += path.attribution
        found = torch.tensor([number_of(totals, node) for node in sums])
        assert_close(found, torch.tensor(list(sums.values())))


@torch.no_grad()
def test_doubling_a_scale_moves_the_target_by_the_nodes_attribution(local):
    target = some_targets(local)[-1]
    totals = TotalAttributions(local, target)
    scale = magnitude(local, target)
    before = frozen_value(local, target, unit_scales(local)).item()
    # Features of layers before pass rounding on: their sums are larger than the target.
    assert before == pytest.approx(target.value, rel=1e-5, abs=1e-5 * scale)
    for node in list(outputs(local))[::8]:
        scales = unit_scales(local)
        scales[node.kind, node.layer][node.place] = 2.0
        moved = frozen_value(local, target, scales).item() - before
        assert moved == pytest.approx(number_of(totals, node), abs=1e-4 * scale)
