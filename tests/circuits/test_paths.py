"""The greedy search finds what plain loops find, and all paths add up to the frozen model."""

from collections import Counter
from collections.abc import Callable
from itertools import chain
from typing import Any

import pytest
import torch

from helpers_circuits import all_paths, assert_close, greedy_paths, number_of, outputs, some_targets
from transcoders.circuits.graph import build_graph
from transcoders.circuits.notation import Node
from transcoders.circuits.paths import Search, find_paths
from transcoders.circuits.verify import TotalAttributions


@pytest.fixture(scope="module")
def targets(small):
    """A sum of logits and a feature, each with every path to it."""
    some = some_targets(small)
    return [(target, all_paths(small, target)) for target in (some[0], some[-1])]


def test_input_times_gradient_is_the_sum_over_all_paths_that_end_in_a_node(small, targets):
    for target, every in targets:
        totals = TotalAttributions(small, target)
        sums = dict.fromkeys(outputs(small), 0.0)
        for path in chain.from_iterable(every.values()):
            sums[path.nodes[-1]] += path.attribution
        found = torch.tensor([number_of(totals, node) for node in sums])
        assert_close(found, torch.tensor(list(sums.values())))


def test_an_exhaustive_search_leaves_errors_to_the_remainders_and_nothing_else_out(small, targets):
    target, every = targets[0]
    graph = build_graph(find_paths(small, target, Search(10**9, 10)))
    scale = max(abs(attribution) for _, attribution in graph.nodes(data="attribution"))
    found = Counter()
    for node, attribution in graph.nodes(data="attribution"):
        found[node.kind] += attribution
        if node.kind == "pruned":
            assert attribution == pytest.approx(0, abs=1e-5 * scale)
    paths = chain.from_iterable(every.values())
    errors = sum(path.attribution for path in paths if path.nodes[-1].kind == "error")
    assert found["error"] == pytest.approx(errors, abs=1e-5 * scale)
    assert bool(found["error"]) == bool(small.replacement.transcoders)


@pytest.mark.parametrize(
    ("search", "score"),
    [
        (Search(4, 3, sign="both"), abs),
        (Search(3, 1, sign="both"), abs),
        (Search(4, 3, sign="positive"), lambda attribution: attribution),
        (Search(4, 3, sign="negative"), lambda attribution: -attribution),
    ],
)
def test_the_paths_are_those_of_plain_loops(small, targets, search, score):
    for target, every in targets:
        found = find_paths(small, target, search)
        expected = greedy_paths(every, target, search, score)
        assert [path.nodes for path in found] == [path.nodes for path in expected]
        assert [path.attribution for path in found] == pytest.approx(
            [path.attribution for path in expected], rel=1e-3, abs=1e-5
        )


KINDS, HEADS = ("head", "error", "embed"), [(0, 1), (1, 0)]
FILTERS: dict[str, tuple[dict[str, Any], Callable[[Node], bool]]] = {
    "components": ({"components": KINDS}, lambda node: node.kind in KINDS),
    "layers": ({"layers": (1,)}, lambda node: node.layer in (1, -1)),
    "heads": ({"heads": HEADS}, lambda node: node.kind != "head" or node[1:3] in HEADS),
    "tokens": ({"tokens": (1, -1)}, lambda node: where(node) in (1, 3)),
    "without BOS": ({"exclude_bos": True}, lambda node: where(node) != 0),
}


def where(node):
    """The token that a node lies at, or that a head reads."""
    return node.source if node.kind == "head" else node.token


@pytest.mark.parametrize("name", FILTERS)
def test_filters_are_those_of_plain_loops(small, targets, name):
    settings, passes = FILTERS[name]

    def allowed(node):
        return passes(node) and (node.kind != "error" or "components" in settings)

    target, every = targets[0]
    search = Search(12, 3, sign="both", **settings)
    found, expected = (
        find_paths(small, target, search),
        greedy_paths(every, target, search, abs, allowed),
    )
    assert {path.nodes for path in found} == {path.nodes for path in expected}


def test_activations_are_those_of_the_features(mixed):
    active = mixed.active
    columns = (active.token, active.layer, active.unit, active.z)
    z = {tuple(key): value for *key, value in zip(*(c.tolist() for c in columns), strict=True)}
    for path in find_paths(mixed, some_targets(mixed)[-1], Search(30, 3))[1:]:
        key = (path.node.token, path.node.layer, path.node.unit)
        assert path.activation == (z[key] if path.node.kind == "feature" else 0.0)
