"""Graphs add up: every node is the sum of what it reads, whatever is merged or left out."""

import math
from typing import Any

import networkx as nx
import pytest

from helpers_circuits import all_paths, make_circuit, prompt, some_targets
from transcoders.circuits.graph import (
    build_graph,
    influence,
    prune_graph,
)
from transcoders.circuits.notation import CONTRIBUTORS, REMAINDERS, Node
from transcoders.circuits.paths import ComputationalPath, Search, find_paths
from transcoders.circuits.replacement import LocalReplacementModel
from transcoders.circuits.vectors import Target
from transcoders.circuits.verify import NodeValues, frozen_value

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


def test_only_parts_that_read_nothing_have_no_incoming_edges(graph: nx.DiGraph) -> None:
    for node in graph:
        assert (graph.in_degree(node) == 0) == (node.kind in ENDS)


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


def test_nodes_say_what_they_are(graph: nx.DiGraph, paths: list[ComputationalPath]) -> None:
    assert graph.graph["target"] == paths[0].node
    for node, data in graph.nodes(data=True):
        assert data["name"] == str(node)
        assert all(data[name] == value for name, value in node._asdict().items() if name in data)
        assert ("activation" in data) == (node.kind == "feature")


def test_edges_run_from_causes_to_effects_without_a_cycle(graph: nx.DiGraph) -> None:
    assert nx.is_directed_acyclic_graph(graph)
    assert set(nx.ancestors(graph, graph.graph["target"])) | {graph.graph["target"]} == set(graph)


def test_an_exhaustive_search_with_errors_leaves_nothing_pruned(
    small: LocalReplacementModel,
) -> None:
    target = some_targets(small)[0]
    exhaustive = Search(10**9, 10, CONTRIBUTORS, sign="both")
    graph = build_graph(find_paths(small, target, exhaustive))
    scale = max(abs(value) for _, value in graph.nodes(data="attribution"))
    left = [n for n in graph if n.kind == "pruned" or (n.kind == "error" and n.layer < 0)]
    for node in left:
        assert abs(graph.nodes[node]["attribution"]) < 1e-5 * scale


def test_an_exhaustive_search_without_errors_leaves_them_in_the_remainders(
    small: LocalReplacementModel,
) -> None:
    target = some_targets(small)[0]
    graph = build_graph(find_paths(small, target, Search(10**9, 10, sign="both")))
    scale = max(abs(value) for _, value in graph.nodes(data="attribution"))
    errors = [n for n in graph if n.kind == "error"]
    assert bool(errors) == bool(small.circuit.transcoders)
    assert all(node.layer == -1 for node in errors)
    paths = all_paths(small, target)
    expected = sum(path.attribution for path in paths if path.nodes[-1].kind == "error")
    found = sum(graph.nodes[node]["attribution"] for node in errors)
    assert found == pytest.approx(expected, abs=1e-5 * scale)
    for node in graph:
        if node.kind == "pruned":
            assert abs(graph.nodes[node]["attribution"]) < 1e-5 * scale


def test_bias_remainders_hold_what_is_left_when_nothing_else_writes(
    small: LocalReplacementModel,
) -> None:
    target = some_targets(small)[0]
    graph = build_graph(find_paths(small, target, Search(10**9, 10, CONTRIBUTORS, sign="both")))
    zeros = NodeValues.ones(small)
    for scales in (zeros.embed, zeros.mlps, zeros.errors):
        scales.detach().zero_()
    expected = frozen_value(small, target, zeros).item()
    biases = [v for node, v in graph.nodes(data="attribution") if node.kind == "bias"]
    scale = max(abs(value) for _, value in graph.nodes(data="attribution"))
    assert sum(biases) == pytest.approx(expected, abs=1e-5 * scale)


def test_a_path_that_was_not_looked_into_is_pruned_whole(mixed: LocalReplacementModel) -> None:
    target = some_targets(mixed)[-1]
    paths = find_paths(mixed, target, Search(12, 1))
    graph = build_graph(paths)
    for path in paths[1:]:
        if path.node.kind in ("feature", "head"):
            (edge,) = graph.in_edges(path.node, data="path_attribution")
            reads = path.node.source if path.node.kind == "head" else path.node.token
            assert edge == (Node("pruned", -1, -1, reads), path.node, path.attribution)


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
    edge = graph.edges[embed, feature]
    assert edge["path_attribution"] == 4.5
    assert edge["direct_weight"] == 1.5  # of the feature's own 2, not of the target
    assert "direct_weight" not in graph.edges[Node("bias", -1, -1, 3), feature]
    assert graph.edges[feature, target.node]["direct_weight"] == 4.0
    assert graph.edges[feature, head]["direct_weight"] == 2.0
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
def test_pruning_changes_nothing_about_what_it_keeps(graph: nx.DiGraph, keep: float) -> None:
    pruned = prune_graph(graph, keep)
    assert pruned.graph["target"] == graph.graph["target"]
    for node in inner(pruned) | {pruned.graph["target"]}:
        assert pruned.nodes[node] == graph.nodes[node]
    for start, end, data in pruned.edges(data=True):
        if start.kind not in REMAINDERS:
            assert data == graph.edges[start, end]
    assert nx.ancestors(pruned, graph.graph["target"]) >= inner(pruned)
    assert_remainders_are_the_sums_of_what_they_give(pruned)


def test_pruning_nothing_keeps_all_nodes_and_edges_but_those_of_remainders(
    graph: nx.DiGraph,
) -> None:
    pruned = prune_graph(graph, 1.0)
    assert inner(pruned) == inner(graph)
    for start, end, data in graph.edges(data=True):
        if start.kind not in REMAINDERS:
            assert pruned.edges[start, end] == data


def test_pruning_everything_keeps_the_target_and_its_remainders(graph: nx.DiGraph) -> None:
    pruned = prune_graph(graph, 0.0)
    assert inner(pruned) == set()
    target = graph.graph["target"]
    assert set(pruned) == {target} | set(pruned.predecessors(target))
    bias = Node("bias", -1, -1, target.token)
    assert pruned.edges[bias, target] == graph.edges[bias, target]


def test_keeping_more_influence_keeps_the_same_nodes_and_more(graph: nx.DiGraph) -> None:
    kept: set[Node] = set()
    for keep in (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.99, 1.0):
        now = inner(prune_graph(graph, keep))
        assert kept <= now
        kept = now
    assert kept == inner(graph)


def test_pruning_leaves_the_graph_alone(graph: nx.DiGraph) -> None:
    before = graph.copy()
    prune_graph(graph, 0.5)
    assert nx.utils.graphs_equal(before, graph)


def test_the_graph_of_a_target_alone_is_bias_and_what_was_left_out(
    mixed: LocalReplacementModel,
) -> None:
    target: Target = some_targets(mixed)[-1]
    graph = build_graph(find_paths(mixed, target, Search(5, 1, components=())))
    assert {node.kind for node in graph} == {target.node.kind, "bias", "error", "pruned"}
    assert_nodes_are_the_sums_of_what_they_read(graph)
    assert math.isclose(graph.nodes[target.node]["attribution"], target.value)
    assert inner(prune_graph(graph, 1.0)) == set()


def test_graphs_of_every_mix_add_up(local: LocalReplacementModel) -> None:
    for target in some_targets(local):
        assert_nodes_are_the_sums_of_what_they_read(
            build_graph(find_paths(local, target, Search(12, 3)))
        )


def test_a_circuit_of_the_last_layer_alone_has_no_node_before_it(
    tiny_model: Any, random_dictionary: Any, random_tokens: Any
) -> None:
    circuit = make_circuit(tiny_model, random_dictionary, {2: "transcoder"}, first=1)
    local = circuit.freeze(prompt(random_tokens))
    search = Search(20, 4, layers=[2], components=("feature", "head"))
    graph = build_graph(find_paths(local, some_targets(local)[0], search))
    assert {node.layer for node in inner(graph)} == {2}
    assert_nodes_are_the_sums_of_what_they_read(graph)


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.7, 0.95, 1.0])
def test_pruned_graphs_still_add_up(graph: nx.DiGraph, keep: float) -> None:
    pruned = prune_graph(graph, keep)
    assert_nodes_are_the_sums_of_what_they_read(pruned)
    ends = [n for n in pruned if n.kind in ENDS]
    assert sum(influence(pruned)[node] for node in ends) == pytest.approx(1.0)


def test_pruning_nothing_keeps_what_remainders_give(graph: nx.DiGraph) -> None:
    pruned = prune_graph(graph, 1.0)
    for kind in ("bias", "pruned"):
        totals = [
            sum(value for n, value in g.nodes(data="attribution") if n.kind == kind)
            for g in (graph, pruned)
        ]
        assert totals[0] == pytest.approx(totals[1])


def test_what_a_head_reads_and_the_search_left_out_lies_where_the_head_reads() -> None:
    target, head = Node("target", 2, -1, 5), Node("head", 1, 0, 5, source=2)
    first = ComputationalPath((target,), 1.0, 1.0, expanded=True)
    second = ComputationalPath((target, head), 0.7, parent=first, bias=0.1, expanded=True)
    first.children.append(second)
    graph = build_graph([first, second])
    edges = {(str(start), str(end)): w for start, end, w in graph.edges(data="path_attribution")}
    assert edges == {
        ("attn1[0]@2", "target@5"): pytest.approx(0.7),
        ("pruned@5", "target@5"): pytest.approx(0.3),
        ("bias@2", "attn1[0]@2"): pytest.approx(0.1),
        ("pruned@2", "attn1[0]@2"): pytest.approx(0.6),
    }
