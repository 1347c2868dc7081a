"""From paths to a graph (the paper's Algorithm 2), completed by leaves, merged, pruned.

Every path was found as an extension of a shorter one, so the paths are all prefixes of themselves,
each once. A node's attribution is the sum of those of the paths that end there, an edge's the sum
of those whose last step it is. What a node reads beside its edges comes from leaves:

- ``bias``: biases of the node and of the parts before it,
- ``error``: what the transcoders before it fail to reconstruct,
- ``pruned``: what the search left out, the whole input of a node that it did not look into.

So every node's attribution is the sum over its incoming edges. Edges run from causes to effects:

- ``path_attribution``: what flows along the edge to the target, over the paths found;
- ``direct_weight``: by how much the edge's start moves its end, all other outputs being fixed, in
  units of the end's own activation (a feature, the target). A head's output is a vector; it is
  counted in the direction in which the graph reads it, so into a head both weights are the same.
  Leaves have none: what is left out differs from one path through a feature to the next.
"""

from collections.abc import Iterable

import networkx as nx

from transcoders.circuits.notation import Node, NodeKind
from transcoders.circuits.paths import ComputationalPath

LEAVES: tuple[NodeKind, ...] = ("bias", "error", "pruned")


def build_graph(paths: list[ComputationalPath]) -> nx.DiGraph:
    """The graph of the paths of :func:`~transcoders.circuits.paths.find_paths`.

    Nodes are :class:`~transcoders.circuits.notation.Node`; their attributes are ``name``, ``kind``,
    ``layer``, ``unit``, ``token``, ``attribution`` and ``activation`` (features and the target).
    ``graph.graph["target"]`` is the target's node.
    """
    graph = nx.DiGraph(target=paths[0].node)
    for path in paths:
        _add(graph, path.node, path.attribution, path.activation)
        if path.parent is not None:
            _connect(graph, path.node, path.parent, path.attribution)
    for path in paths:
        if path.node.kind in ("feature", "head", "target"):
            _add_leaves(graph, path)
    return graph


def _add(graph: nx.DiGraph, node: Node, attribution: float, activation: float = 0.0) -> None:
    if node not in graph:
        graph.add_node(node, name=str(node), **node._asdict(), attribution=0.0)
    graph.nodes[node]["attribution"] += attribution
    if activation:
        graph.nodes[node]["activation"] = activation


def _connect(graph: nx.DiGraph, start: Node, end: ComputationalPath, attribution: float) -> None:
    if not graph.has_edge(start, end.node):
        graph.add_edge(start, end.node, path_attribution=0.0, direct_weight=0.0)
    edge = graph.edges[start, end.node]
    edge["path_attribution"] += attribution
    if end.activation:  # the same whichever path: all of them enter one feature
        edge["direct_weight"] = attribution * end.activation / end.attribution
    else:
        edge["direct_weight"] += attribution


def _add_leaves(graph: nx.DiGraph, path: ComputationalPath) -> None:
    kept = sum(child.attribution for child in path.children)
    kept_error = sum(c.attribution for c in path.children if c.node.kind == "error")
    amounts = {
        "bias": path.bias,
        "error": path.error - kept_error,
        "pruned": path.attribution - kept - path.bias - (path.error - kept_error),
    }
    if not path.expanded:
        amounts = {"pruned": path.attribution}
    for kind in LEAVES:
        if amount := amounts.get(kind, 0.0):
            _add_leaf(graph, kind, path.node, amount)


def _add_leaf(graph: nx.DiGraph, kind: NodeKind, end: Node, amount: float) -> None:
    """Let a leaf of this kind, at the token that ``end`` reads, contribute ``amount`` to it."""
    leaf = Node(kind, -1, -1, end.source if end.kind == "head" else end.token)
    _add(graph, leaf, amount)
    if not graph.has_edge(leaf, end):
        graph.add_edge(leaf, end, path_attribution=0.0)
    graph.edges[leaf, end]["path_attribution"] += amount


def without_leaves(graph: nx.DiGraph) -> nx.DiGraph:
    """The parts of the model alone: what is drawn."""
    return graph.subgraph(node for node in graph if node.kind not in LEAVES)


def merge_graphs(graphs: Iterable[nx.DiGraph], n_tokens: Iterable[int]) -> nx.DiGraph:
    """One graph for several prompts: attributes are averaged, tokens counted from the end.

    A node or edge that some graphs lack counts as 0 there; ``share`` says in how many it is.

    Args:
        graphs: of prompts with the same target, but for the token.
        n_tokens: of each prompt.
    """
    graphs = list(graphs)
    merged = nx.DiGraph()
    for graph, n in zip(graphs, n_tokens, strict=True):

        def moved(node: Node, n: int = n) -> Node:
            source = node.source - n if node.source >= 0 else -1
            return node._replace(token=node.token - n, source=source)

        merged.graph["target"] = moved(graph.graph["target"])
        for node, data in graph.nodes(data=True):
            new = moved(node)
            if new not in merged:
                merged.add_node(new, name=str(new), **new._asdict(), attribution=0.0, share=0.0)
            _average(merged.nodes[new], data, len(graphs))
        for start, end, data in graph.edges(data=True):
            ends = moved(start), moved(end)
            if not merged.has_edge(*ends):
                merged.add_edge(*ends, share=0.0)
            _average(merged.edges[ends], data, len(graphs))
    return merged


def _average(into: dict[str, float], data: dict[str, float], n_graphs: int) -> None:
    for name in ("attribution", "activation", "path_attribution", "direct_weight"):
        if name in data:
            into[name] = into.get(name, 0.0) + data[name] / n_graphs
    into["share"] += 1 / n_graphs


def influence(graph: nx.DiGraph) -> dict[Node, float]:
    """Each node's share of the target: 1 for the target, handed on to what it reads.

    A node hands its influence to its causes in proportion to the sizes of their edges, so leaves
    and embeddings end up with shares that sum to 1.
    """
    shares = dict.fromkeys(graph, 0.0)
    shares[graph.graph["target"]] = 1.0
    for node in reversed(list(nx.topological_sort(graph))):
        edges = list(graph.in_edges(node, data="path_attribution"))
        total = sum(abs(weight) for _, _, weight in edges)
        for cause, _, weight in edges:
            shares[cause] += shares[node] * abs(weight) / total if total else 0.0
    return shares


def prune_graph(graph: nx.DiGraph, keep: float) -> nx.DiGraph:
    """Keep the most influential nodes, and hand what the others contributed to ``pruned`` leaves.

    Args:
        graph: of one prompt.
        keep: share of the influence of all nodes but the target and the leaves to keep, 0 to 1.
    """
    shares = influence(graph)
    target = graph.graph["target"]
    inner = [n for n in graph if n.kind not in LEAVES and n != target]
    inner.sort(key=lambda node: (-shares[node], node))
    budget = keep * sum(shares[node] for node in inner)
    kept, reached = {target}, 0.0
    for node in inner:
        if reached >= budget:
            break
        kept.add(node)
        reached += shares[node]
    pruned = graph.subgraph(kept).copy()
    # What no longer reaches the target explains nothing.
    pruned = pruned.subgraph(nx.ancestors(pruned, target) | {target}).copy()
    inner_nodes = sorted(pruned)
    for end in inner_nodes:
        for start, _, amount in graph.in_edges(end, data="path_attribution"):
            if start not in inner_nodes:
                _add_leaf(pruned, start.kind if start.kind in LEAVES else "pruned", end, amount)
    return pruned
