"""From paths to a graph (the paper's Algorithm 2), completed by remainders, pruned.

Every path extends a shorter one that was also found. The attribution of a node is the sum over the
paths that end there; that of an edge is the sum over the paths that end with this step. The rest of
what a node reads comes from remainder nodes:

- ``bias``: biases of the node and of the parts before it,
- ``error``: what the transcoders before it fail to reconstruct,
- ``pruned``: what the search left out. If it never looked into a node, this is all of its input.

So every node's attribution is the sum over its incoming edges. Edges run from causes to effects.
Their ``path_attribution`` is what flows along them to the target, over the paths found. It has a
sign; influence depends on its size.
"""

import networkx as nx

from transcoders.circuits.notation import REMAINDERS, Node, NodeKind
from transcoders.circuits.paths import ComputationalPath


def build_graph(paths: list[ComputationalPath]) -> nx.DiGraph:
    """The graph of the paths of :func:`~transcoders.circuits.paths.find_paths`.

    A head of layer 0 reads the embedding alone. No path says so, but an edge does.

    Nodes are :class:`~transcoders.circuits.notation.Node`; their attributes are ``name``, ``kind``,
    ``layer``, ``unit``, ``token``, ``attribution`` and ``activation`` (features and the target).
    ``graph.graph["target"]`` is the target's node.
    """
    graph = nx.DiGraph(target=paths[0].node)
    for path in paths:
        end = None if path.parent is None else path.parent.node
        _add(graph, path.node, path.attribution, end)
        if path.activation:
            graph.nodes[path.node]["activation"] = path.activation
    for path in paths:
        if path.node.reads_embedding:
            embedding = Node(NodeKind.EMBED, -1, -1, path.node.source)
            _add(graph, embedding, path.attribution, path.node)
        elif path.node.kind in ("feature", "head", "target"):
            _add_remainders(graph, path)
    return graph


def _add(graph: nx.DiGraph, node: Node, attribution: float, end: Node | None) -> None:
    """Add to a node's attribution, and to that of its edge to ``end``."""
    if node not in graph:
        graph.add_node(node, name=str(node), **node._asdict(), attribution=0.0)
    graph.nodes[node]["attribution"] += attribution
    if end is not None:
        if not graph.has_edge(node, end):
            graph.add_edge(node, end, path_attribution=0.0)
        graph.edges[node, end]["path_attribution"] += attribution


def _add_remainders(graph: nx.DiGraph, path: ComputationalPath) -> None:
    kept = sum(child.attribution for child in path.children)
    error = path.error - sum(c.attribution for c in path.children if c.node.kind == "error")
    amounts = {
        NodeKind.BIAS: path.bias,
        NodeKind.ERROR: error,
        NodeKind.PRUNED: path.attribution - kept - path.bias - error,
    }
    if not path.expanded:
        amounts = {NodeKind.PRUNED: path.attribution}
    for kind, amount in amounts.items():
        if amount:
            _add_remainder(graph, kind, path.node, amount)


def _add_remainder(graph: nx.DiGraph, kind: NodeKind, end: Node, amount: float) -> None:
    """Let a remainder at the token that ``end`` reads contribute ``amount`` to it."""
    _add(graph, Node(kind, -1, -1, end.source if end.kind == "head" else end.token), amount, end)


def without_remainders(graph: nx.DiGraph) -> nx.DiGraph:
    """Only the parts of the model. This is what gets drawn."""
    return graph.subgraph(node for node in graph if node.kind not in REMAINDERS)


def influence(graph: nx.DiGraph) -> dict[Node, float]:
    """Each node's share of the target, the largest first.

    The target has an influence of 1. Every node hands its influence on to its causes, in proportion
    to the sizes of their edges. So the shares of all nodes that read nothing sum to 1.
    """
    shares = dict.fromkeys(graph, 0.0)
    shares[graph.graph["target"]] = 1.0
    for node in reversed(list(nx.topological_sort(graph))):
        edges = list(graph.in_edges(node, data="path_attribution"))
        total = sum(abs(weight) for _, _, weight in edges)
        for cause, _, weight in edges:
            shares[cause] += shares[node] * abs(weight) / total if total else 0.0
    return dict(sorted(shares.items(), key=lambda share: (-share[1], share[0])))


def prune_graph(graph: nx.DiGraph, keep: float) -> nx.DiGraph:
    """Keep the most influential nodes. Remainders take over what the others contributed.

    Args:
        graph: of one prompt.
        keep: the share of influence to keep, from 0 to 1. The target and the remainders do not
            count.
    """
    shares = influence(graph)
    target = graph.graph["target"]
    inner = [node for node in shares if node.kind not in REMAINDERS and node != target]
    budget = keep * sum(shares[node] for node in inner)
    kept, reached = {target}, 0.0
    for node in inner:
        if reached >= budget:
            break
        kept.add(node)
        reached += shares[node]
    # A node that no longer reaches the target explains nothing.
    kept &= nx.ancestors(graph.subgraph(kept), target) | {target}
    pruned = graph.subgraph(kept).copy()
    inner = sorted(pruned)
    for end in inner:
        for start, _, amount in graph.in_edges(end, data="path_attribution"):
            if start not in inner:
                kind = start.kind if start.kind in REMAINDERS else NodeKind.PRUNED
                _add_remainder(pruned, kind, end, amount)
    return pruned
