"""Graphs add up: every node is the sum of what it reads, whatever is merged or left out."""

from typing import Any

import networkx as nx
import pytest

from helpers_circuits import all_paths, some_targets
from transcoders.circuits.graph import (
    build_graph,
    influence,
    prune_graph,
)
from transcoders.circuits.notation import CONTRIBUTORS, REMAINDERS, Node
from transcoders.circuits.paths import ComputationalPath, Search, find_paths
from transcoders.circuits.replacement import LocalReplacementModel

SEARCHES = {
    "few": Search(5, 2),
    "many": Search(60, 4, sign="both"),
    "with errors": Search(60, 4, CONTRIBUTORS, sign="both"),
    "negative": Search(10, 3, sign="negative"),
}
ENDS = ("embed", "mlp", *REMAINDERS)
"""Kinds of nodes that read nothing: influence ends in them."""


def paths_of(local: LocalReplacementModel, which: str = "many") -> list[ComputationalPath]:
    """Paths of the last of a prompt's targets."""
    return find_paths(local, some_targets(local)[-1], SEARCHES[which])


@pytest.fixture(scope="module", params=list(SEARCHES))
def paths(request: pytest.FixtureRequest, mixed: LocalReplacementModel) -> list[ComputationalPath]:
    return paths_of(mixed, request.param)


@pytest.fixture(scope="module")
def graph(paths: list[ComputationalPath]) -> nx.DiGraph:
    return build_graph(paths)


def assert_nodes_are_the_sums_of_what_they_read(graph: nx.DiGraph) -> None:
    scale = max(abs(value) for _, value in graph.nodes(data="attribution"))
    for node, attribution in graph.nodes(data="attribution"):
        if graph.in_degree(node):
            total = sum(w for *_, w in graph.in_edges(node, data="path_attribution"))
            assert total == pytest.approx(attribution, abs=1e-9 * scale)


def assert_remainders_are_the_sums_of_what_they_give(graph: nx.DiGraph) -> None:
    scale = max(abs(value) for _, value in graph.nodes(data="attribution"))
    for node, data in graph.nodes(data=True):
        if node.kind in REMAINDERS and node.layer < 0:
            total = sum(w for *_, w in graph.out_edges(node, data="path_attribution"))
            assert total == pytest.approx(data["attribution"], abs=1e-9 * scale)


def inner(graph: nx.DiGraph) -> set[Node]:
    """All nodes but the target and the remainders."""
    return {n for n in graph if n.kind not in REMAINDERS and n != graph.graph["target"]}


def test_every_node_is_the_sum_of_what_it_reads(graph: nx.DiGraph) -> None:
    assert_nodes_are_the_sums_of_what_they_read(graph)
    assert_remainders_are_the_sums_of_what_they_give(graph)


def test_nodes_and_edges_count_each_path_once(
    graph: nx.DiGraph, paths: list[ComputationalPath]
) -> None:
    ends: dict[Node, float] = {}
    steps: dict[tuple[Node, Node], float] = {}
    for path in paths:
        ends[path.node] = ends.get(path.node, 0.0) + path.attribution
        if len(path.nodes) > 1:
            step = (path.nodes[-1], path.nodes[-2])
            steps[step] = steps.get(step, 0.0) + path.attribution
    found = {n for n in graph if n.kind not in REMAINDERS or n.layer >= 0}
    assert found == set(ends)
    for node, attribution in ends.items():
        assert graph.nodes[node]["attribution"] == pytest.approx(attribution, rel=1e-9)
    for step, attribution in steps.items():
        assert graph.edges[step]["path_attribution"] == pytest.approx(attribution, rel=1e-9)
    assert {edge for edge in graph.edges if edge[0] in found} == set(steps)


def test_an_exhaustive_search_without_errors_leaves_them_in_the_remainders(
    small: LocalReplacementModel,
) -> None:
    target = some_targets(small)[0]
    graph = build_graph(find_paths(small, target, Search(10**9, 10, sign="both")))
    scale = max(abs(value) for _, value in graph.nodes(data="attribution"))
    errors = [n for n in graph if n.kind == "error"]
    assert bool(errors) == bool(small.replacement.transcoders)
    assert all(node.layer == -1 for node in errors)
    paths = all_paths(small, target)
    expected = sum(path.attribution for path in paths if path.nodes[-1].kind == "error")
    found = sum(graph.nodes[node]["attribution"] for node in errors)
    assert found == pytest.approx(expected, abs=1e-5 * scale)
    for node in graph:
        if node.kind == "pruned":
            assert abs(graph.nodes[node]["attribution"]) < 1e-5 * scale


def made_path(
    node: Node, attribution: float, parent: ComputationalPath | None = None, **settings: Any
) -> ComputationalPath:
    """A path that no search found."""
    nodes = (*(parent.nodes if parent else ()), node)
    path = ComputationalPath(nodes, attribution, parent=parent, **settings)
    if parent is not None:
        parent.children.append(path)
    return path


def test_a_graph_made_by_hand_has_the_numbers_worked_out_by_hand() -> None:
    # The target, 10, reads a feature (active by 2) directly and through a head.
    feature = Node("feature", 0, 7, 3)
    head = Node("head", 1, 0, 3, 3)
    embed = Node("embed", -1, -1, 3)
    target = made_path(
        Node("target", 2, -1, 3), 10.0, activation=10.0, bias=1.0, error=0.5, expanded=True
    )
    direct = made_path(feature, 4.0, target, activation=2.0, bias=1.0, expanded=True)
    by_head = made_path(head, 3.0, target, bias=0.0, expanded=True)
    through = made_path(feature, 2.0, by_head, activation=2.0, bias=0.5, expanded=True)
    read = made_path(embed, 3.0, direct)
    again = made_path(embed, 1.5, through)
    graph = build_graph([target, direct, by_head, through, read, again])
    numbers = dict(graph.nodes(data="attribution"))
    assert numbers[feature] == 6.0
    assert numbers[embed] == 4.5
    assert numbers[Node("bias", -1, -1, 3)] == 2.5
    assert numbers[Node("error", -1, -1, 3)] == 0.5
    # Of the target: 10 - 4 - 3 - 1 - 0.5; of the head: 3 - 2.
    assert numbers[Node("pruned", -1, -1, 3)] == 2.5
    assert graph.edges[embed, feature]["path_attribution"] == 4.5
    assert graph.edges[feature, head]["path_attribution"] == 2.0
    assert graph.nodes[feature]["activation"] == 2.0


def test_influence_ends_in_what_reads_nothing(graph: nx.DiGraph) -> None:
    shares = influence(graph)
    assert shares[graph.graph["target"]] == 1.0
    assert all(share >= 0 for share in shares.values())
    assert sum(shares[node] for node in graph if node.kind in ENDS) == pytest.approx(1.0)


def test_influence_is_handed_on_by_the_sizes_of_edges() -> None:
    graph = nx.DiGraph()
    nodes = [Node("target", 2, -1, 1), Node("feature", 0, 1, 1), Node("embed", -1, -1, 1)]
    graph.graph["target"] = nodes[0]
    graph.add_edge(nodes[1], nodes[0], path_attribution=-3.0)
    graph.add_edge(nodes[2], nodes[0], path_attribution=1.0)
    graph.add_edge(nodes[2], nodes[1], path_attribution=-3.0)
    assert influence(graph) == {nodes[0]: 1.0, nodes[1]: 0.75, nodes[2]: 1.0}


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.7, 0.95, 1.0])
def test_pruned_graphs_still_add_up(graph: nx.DiGraph, keep: float) -> None:
    pruned = prune_graph(graph, keep)
    assert_nodes_are_the_sums_of_what_they_read(pruned)
    ends = [n for n in pruned if n.kind in ENDS]
    assert sum(influence(pruned)[node] for node in ends) == pytest.approx(1.0)
