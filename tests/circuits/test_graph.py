"""Graphs add up: every node is the sum of what it reads, whatever is merged or left out."""

from collections import Counter

import networkx as nx
import pytest

from helpers_circuits import some_targets
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


@pytest.mark.parametrize("keep", [None, 0.0, 0.7, 1.0])
def test_nodes_are_the_sums_of_what_they_read_and_influence_ends_in_what_reads_nothing(graph, keep):
    pruned = graph if keep is None else prune_graph(graph, keep)
    scale = max(abs(value) for _, value in pruned.nodes(data="attribution"))
    for node, attribution in pruned.nodes(data="attribution"):
        edges = pruned.in_edges(node, data="path_attribution")
        if node.kind in REMAINDERS and node.layer < 0:  # these are the sums of what they give
            edges = pruned.out_edges(node, data="path_attribution")
        if edges:
            total = sum(weight for *_, weight in edges)
            assert total == pytest.approx(attribution, abs=1e-9 * scale)
    shares = influence(pruned)
    assert all(share >= 0 for share in shares.values())
    assert sum(shares[node] for node in pruned if node.kind in ENDS) == pytest.approx(1.0)


def test_nodes_and_edges_count_each_path_once(graph, paths):
    ends, steps = Counter(), Counter()
    for path in paths:
        ends[path.node] += path.attribution
        if path.parent is not None:
            steps[path.node, path.parent.node] += path.attribution
        if (
            path.node.kind == "head" and path.node.layer == 0
        ):  # the step after it is no path, but an edge
            embedding = Node("embed", -1, -1, path.node.source)
            ends[embedding] += path.attribution
            steps[embedding, path.node] += path.attribution
    found = {n for n in graph if n.kind not in REMAINDERS or n.layer >= 0}
    assert {n: graph.nodes[n]["attribution"] for n in found} == pytest.approx(ends, rel=1e-9)
    edges = {edge: graph.edges[edge]["path_attribution"] for edge in graph.edges}
    assert {e: w for e, w in edges.items() if e[0] in found} == pytest.approx(steps, rel=1e-9)


def test_influence_is_handed_on_by_the_sizes_of_edges():
    end, middle = Node("target", 2, -1, 1), Node("feature", 0, 1, 1)
    start = Node("embed", -1, -1, 1)
    graph = nx.DiGraph(target=end)
    edges = [(middle, end, -3.0), (start, end, 1.0), (start, middle, -3.0)]
    graph.add_weighted_edges_from(edges, weight="path_attribution")
    assert influence(graph) == {end: 1.0, middle: 0.75, start: 1.0}
