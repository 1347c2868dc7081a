"""The gradients of the frozen model are attributions over all paths."""

import torch

from helpers_circuits import all_paths, assert_close, number_of, outputs, some_targets
from transcoders.circuits.verify import TotalAttributions


def test_input_times_gradient_is_the_sum_over_all_paths_that_end_in_a_node(small):
    for target in (some_targets(small)[0], some_targets(small)[-1]):
        totals = TotalAttributions(small, target)
        sums = dict.fromkeys(outputs(small), 0.0)
        for path in all_paths(small, target):
            sums[path.nodes[-1]] += path.attribution
        found = torch.tensor([number_of(totals, node) for node in sums])
        assert_close(found, torch.tensor(list(sums.values())))
