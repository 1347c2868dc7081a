"""Circuits as files: our own record of the paths, and the graph for other people's viewers.

``paths.json`` holds everything that figures and pages need, so both can be made again without a
model. ``graph.json`` has the data model of circuit-tracer 0.5
(``circuit_tracer.frontend.graph_models``), which Neuronpedia reads too. A circuit's folder is what
circuit-tracer's own server serves: beside the graph lie ``graph-metadata.json``, its list of
graphs, and ``features/``, what is known of each feature
(:mod:`transcoders.circuits.features`).
"""

import re
from itertools import accumulate
from pathlib import Path
from typing import Any

import networkx as nx

from transcoders.circuits.graph import influence
from transcoders.circuits.labels import Labels, shown
from transcoders.circuits.notation import Node, NodeKind
from transcoders.circuits.paths import ComputationalPath
from transcoders.errors import UserError
from transcoders.files import read_json, write_json

FEATURE_TYPES = {
    NodeKind.FEATURE: "cross layer transcoder",
    NodeKind.HEAD: "attention head",
    NodeKind.MLP: "mlp reconstruction error",
    NodeKind.ERROR: "mlp reconstruction error",
    NodeKind.EMBED: "embedding",
    NodeKind.BIAS: "bias",
    NodeKind.PRUNED: "pruning error",
    NodeKind.TARGET: "logit",
}
"""What the viewers call our nodes. They show the name of any node with ``error`` in its type. An
MLP without a transcoder is all error: no feature explains any of it."""
BEYOND_FEATURES = 10_000_000
"""From here on, no number is that of a feature. The viewers tell nodes apart by layer, number and
token alone, so a head needs a number that no feature of its layer has."""
BY_HEAD = 100_000
"""A head's number also holds the token that it reads, which is below this."""
FEATURES = "features"
"""Folder of what is known of each feature, beside the graph."""
VALUES = ("attribution", "activation", "bias", "error", "expanded")
"""What the record holds of each path, besides its last node and its parent."""


def paths_record(paths: list[ComputationalPath]) -> list[dict[str, Any]]:
    """Paths as JSON. A parent is given by its place in the list."""
    place = {id(path): number for number, path in enumerate(paths)}
    return [
        {
            "node": str(path.node),
            "parent": None if path.parent is None else place[id(path.parent)],
            **path.node._asdict(),
            **{name: getattr(path, name) for name in VALUES},
        }
        for path in paths
    ]


def paths_of_record(record: list[dict[str, Any]]) -> list[ComputationalPath]:
    """The paths that :func:`paths_record` wrote."""
    paths: list[ComputationalPath] = []
    for row in record:
        node = Node(*(row[name] for name in Node._fields))
        parent = None if row["parent"] is None else paths[row["parent"]]
        nodes = (*(parent.nodes if parent else ()), node)
        values = {name: row[name] for name in VALUES}
        path = ComputationalPath(nodes=nodes, parent=parent, **values)
        if parent is not None:
            parent.children.append(path)
        paths.append(path)
    return paths


def load_circuit(folder: Path) -> tuple[dict[str, Any], list[ComputationalPath]]:
    """``paths.json`` of a circuit: the whole record, and its paths.

    Raises:
        UserError: it is missing, is not such a record, or was changed since it was made.
    """
    record = read_json(folder / "paths.json")
    try:
        return record, paths_of_record(record["paths"])
    except (AttributeError, KeyError, TypeError, ValueError):
        raise UserError(
            f"{folder / 'paths.json'}: expected the record of a circuit, found something else; "
            "restore it, or find the circuit again"
        ) from None


def write_graph(folder: Path, graph: nx.DiGraph, record: dict[str, Any], labels: Labels) -> None:
    """Write the viewers' graph, and the list of graphs that circuit-tracer's server asks for.

    Args:
        folder: of the circuit.
        graph: of :func:`attribution_graph`, as are the others.
        record: of ``paths.json``.
        labels: of features.
    """
    viewed = attribution_graph(graph, record, labels)
    write_json(folder / "graph.json", viewed)
    # The server looks for a graph at its slug, and this one's file is graph.json.
    listed = {"graphs": [viewed["metadata"] | {"slug": "graph"}]}
    write_json(folder / "graph-metadata.json", listed)


def attribution_graph(graph: nx.DiGraph, record: dict[str, Any], labels: Labels) -> dict[str, Any]:
    """A circuit in the data model of circuit-tracer's and Neuronpedia's viewers.

    Args:
        graph: of one prompt.
        record: of ``paths.json``; its paths are not used.
        labels: of features; those without one keep their number.
    """
    graph = _with_an_output(graph, record)
    ids = {node: _place(node, record)["node_id"] for node in graph}
    reached = _cumulative_influence(graph)
    return {
        "metadata": {
            "slug": re.sub(r"[^A-Za-z0-9.-]+", "-", record["name"]),
            # With this name, the viewers look up features in the list, by layer.
            "scan": f"custom-{record['model']}",
            "transcoder_list": [
                f"./data/{FEATURES}" if layer in record["transcoders"] else ""
                for layer in range(record["n_layers"])
            ],
            "prompt_tokens": record["tokens"],
            "prompt": record["prompt"],
            "node_threshold": 1.0,  # all nodes, and a slider to show fewer
            "schema_version": 1,
            "info": {"generator": {"name": "transcoders"}},
        },
        "qParams": {
            "pinnedIds": [], "supernodes": [], "linkType": "both", "clickedId": "", "sg_pos": "",
        },
        "nodes": [
            {
                **_place(node, record),
                "ctx_idx": node.token,
                "feature_type": FEATURE_TYPES[node.kind],
                "token_prob": _probability(record) if node.kind == "target" else 0.0,
                "is_target_logit": node.kind == "target",
                "clerp": _clerp(node, record, labels),
                "influence": reached.get(node),
                "activation": data.get("activation") if node.kind == "feature" else None,
            }
            for node, data in graph.nodes(data=True)
        ],
        "links": [
            {"source": ids[start], "target": ids[end], "weight": weight}
            for start, end, weight in graph.edges(data="path_attribution")
        ],
    }  # fmt: skip


def feature_number(layer: int, unit: int) -> int:
    """The one number of a feature of any layer: Cantor's pairing of the two."""
    return (layer + unit) * (layer + unit + 1) // 2 + unit


def _with_an_output(graph: nx.DiGraph, record: dict[str, Any]) -> nx.DiGraph:
    """The graph, with an output to a target that is a feature: the viewers build on an output."""
    target = graph.graph["target"]
    if target.kind == "target":
        return graph
    graph, value = graph.copy(), graph.nodes[target]["attribution"]
    output = Node(NodeKind.TARGET, record["n_layers"], -1, target.token)
    graph.add_node(output)
    graph.add_edge(target, output, path_attribution=value)
    graph.graph["target"] = output
    return graph


def _cumulative_influence(graph: nx.DiGraph) -> dict[Node, float]:
    """For each node, the share of all influence that nodes with at least as much have together.

    So the viewers' slider at 0.8 shows the strongest nodes that have 80% of it. The target itself
    does not count, and has no share.
    """
    shares = influence(graph)
    del shares[graph.graph["target"]]
    sums = list(accumulate(shares.values()))
    return {node: reached / (sums[-1] or 1.0) for node, reached in zip(shares, sums, strict=True)}


def _place(node: Node, record: dict[str, Any]) -> dict[str, Any]:
    """Where a node stands: its layer, numbers and names.

    As in circuit-tracer, except that there an error node of layer 7 at token 3 is ``0_7_3``, and so
    is feature 7 of layer 0. Here it is ``7_-1_3``.
    """
    layer, number, feature, name = str(node.layer), -1, -1, None
    match node.kind:
        case NodeKind.FEATURE:
            number, feature = node.unit, feature_number(node.layer, node.unit)
        case NodeKind.HEAD:
            number = BEYOND_FEATURES + BY_HEAD * node.unit + node.source
            feature = feature_number(node.layer, number)
        case NodeKind.EMBED:
            layer, number, feature = "E", record["token_ids"][node.token], node.token
            name = f"E_{number}-{node.token}"
        case NodeKind.TARGET:
            layer, number = str(node.layer + 1), _vocabulary_index(record)
            feature, name = number, f"L_{number}-{node.token}"
        case NodeKind.MLP | NodeKind.ERROR if node.layer >= 0:
            name = f"{layer}_{node.token}-0"
        case remainder:
            layer = "E"
            if remainder == NodeKind.BIAS:
                number, feature = BEYOND_FEATURES, feature_number(0, BEYOND_FEATURES)
            elif remainder == NodeKind.PRUNED:
                number = feature = -2
    return {
        "node_id": f"{layer}_{number}_{node.token}",
        "feature": feature,
        "layer": layer,
        "jsNodeId": name or f"{layer}_{number}-0",
    }


def _vocabulary_index(record: dict[str, Any]) -> int:
    """The token whose logit is the target; the size of the vocabulary if it is no single logit."""
    logits = record["target"]["logits"]
    is_single = len(logits) == 1 and logits[0]["weight"] == 1
    return int(logits[0]["token_id"] if is_single else record["d_vocab"])


def _probability(record: dict[str, Any]) -> float:
    """The target's sum with probabilities in place of logits; 1 for a feature, which has none."""
    logits = record["target"]["logits"]
    return sum(each["weight"] * each["probability"] for each in logits) if logits else 1.0


def _clerp(node: Node, record: dict[str, Any], labels: Labels) -> str:
    """What the viewers write beside a node."""
    if node.kind == "target":
        # The viewers read the text between the quotes, and the number.
        single = _vocabulary_index(record) < record["d_vocab"]
        text = record["target"]["logits"][0]["token"] if single else record["target"]["name"]
        return f'Output "{text}" (p={_probability(record):.3f})'
    label = labels.get(node.name)
    text = "" if label is None else shown(label)
    return f"{node}: {text}" if text else str(node)
