"""Graphs add up: every node is the sum of what it reads, whatever is merged or left out."""

from collections import Counter

import networkx as nx
import pytest

from helpers_circuits import all_paths, is_first_head, some_targets
from transcoders.circuits.graph import build_graph, influence, prune_graph
from transcoders.circuits.notation import CONTRIBUTORS, REMAINDERS, Node
from transcoders.circuits.paths import Search, find_paths

SEARCHES = {
    "few": Search(5, 2),
    "many": Search(60, 4, sign="both"),
    "with errors": Search(60, 4, CONTRIBUTORS, sign="both"),
    "negative": Search(10, 3, sign="negative"),
}
ENDS = ("embed", "mlp", *REMAINDERS)
"""Kinds of nodes that read nothing: influence ends in them."""


@pytest.fixture(scope="module", params=list(SEARCHES))
def paths(request, mixed):
    return find_paths(mixed, some_targets(mixed)[-1], SEARCHES[request.param])


@pytest.fixture(scope="module")
def graph(paths):
    return build_graph(paths)


def assert_nodes_are_the_sums_of_what_they_read(graph):
    scale = max(abs(value) for _, value in graph.nodes(data="attribution"))
    for node, attribution in graph.nodes(data="attribution"):
        if graph.in_degree(node):
            total = sum(w for *_, w in graph.in_edges(node, data="path_attribution"))
            assert total == pytest.approx(attribution, abs=1e-9 * scale)


def test_every_node_is_the_sum_of_what_it_reads(graph):
    assert_nodes_are_the_sums_of_what_they_read(graph)
    # And every remainder of what it gives.
    scale = max(abs(value) for _, value in graph.nodes(data="attribution"))
    for node, attribution in graph.nodes(data="attribution"):
        if node.kind in REMAINDERS and node.layer < 0:
            total = sum(w for *_, w in graph.out_edges(node, data="path_attribution"))
            assert total == pytest.approx(attribution, abs=1e-9 * scale)


def test_nodes_and_edges_count_each_path_once(graph, paths):
    ends, steps = Counter(), Counter()
    for path in paths:
        ends[path.node] += path.attribution
        if path.parent is not None:
            steps[path.node, path.parent.node] += path.attribution
        if is_first_head(path.node):  # the step after it is no path, but an edge
            embedding = Node("embed", -1, -1, path.node.source)
            ends[embedding] += path.attribution
            steps[embedding, path.node] += path.attribution
    found = {n for n in graph if n.kind not in REMAINDERS or n.layer >= 0}
    assert {n: graph.nodes[n]["attribution"] for n in found} == pytest.approx(ends, rel=1e-9)
    edges = {edge: graph.edges[edge]["path_attribution"] for edge in graph.edges}
    assert {e: w for e, w in edges.items() if e[0] in found} == pytest.approx(steps, rel=1e-9)


def test_an_exhaustive_search_leaves_errors_to_the_remainders_and_nothing_else_out(small):
    target = some_targets(small)[0]
    graph = build_graph(find_paths(small, target, Search(10**9, 10)))
    scale = max(abs(attribution) for _, attribution in graph.nodes(data="attribution"))
    found = Counter()
    for node, attribution in graph.nodes(data="attribution"):
        found[node.kind] += attribution
        if node.kind == "pruned":
            assert attribution == pytest.approx(0, abs=1e-5 * scale)
    paths = all_paths(small, target)
    errors = sum(path.attribution for path in paths if path.nodes[-1].kind == "error")
    assert found["error"] == pytest.approx(errors, abs=1e-5 * scale)
    assert bool(found["error"]) == bool(small.replacement.transcoders)


def test_influence_ends_in_what_reads_nothing(graph):
    shares = influence(graph)
    assert shares[graph.graph["target"]] == 1.0
    assert all(share >= 0 for share in shares.values())
    assert sum(shares[node] for node in graph if node.kind in ENDS) == pytest.approx(1.0)


def test_influence_is_handed_on_by_the_sizes_of_edges():
    graph = nx.DiGraph()
    nodes = [Node("target", 2, -1, 1), Node("feature", 0, 1, 1), Node("embed", -1, -1, 1)]
    graph.graph["target"] = nodes[0]
    graph.add_edge(nodes[1], nodes[0], path_attribution=-3.0)
    graph.add_edge(nodes[2], nodes[0], path_attribution=1.0)
    graph.add_edge(nodes[2], nodes[1], path_attribution=-3.0)
    assert influence(graph) == {nodes[0]: 1.0, nodes[1]: 0.75, nodes[2]: 1.0}


@pytest.mark.parametrize("keep", [0.0, 0.7, 1.0])
def test_pruned_graphs_still_add_up(graph, keep):
    pruned = prune_graph(graph, keep)
    assert_nodes_are_the_sums_of_what_they_read(pruned)
    ends = [n for n in pruned if n.kind in ENDS]
    assert sum(influence(pruned)[node] for node in ends) == pytest.approx(1.0)
