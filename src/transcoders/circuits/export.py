"""Circuits as files: our own record of the paths, and the graph for other people's viewers.

``paths.json`` holds everything that figures and pages need, so both can be made again without a
model. ``graph.json`` has the attribution-graph format of the viewers of circuit-tracer and
Neuronpedia (github.com/hijohnnylin/neuronpedia, apps/webapp/app/api/graph/graph-schema.json
describes its fields).
"""

import re
from pathlib import Path
from typing import Any

import networkx as nx

from transcoders.circuits.graph import influence
from transcoders.circuits.labels import Labels, shown
from transcoders.circuits.notation import Node
from transcoders.circuits.paths import ComputationalPath
from transcoders.errors import UserError
from transcoders.files import read_json

FEATURE_TYPES = {
    "feature": "cross layer transcoder",
    "head": "attention head",
    "bias": "bias",
    "embed": "embedding",
    "target": "logit",
}
"""What the viewers call our nodes. All others are ``mlp reconstruction error``."""
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


def attribution_graph(
    graph: nx.DiGraph, record: dict[str, Any], *, labels: Labels
) -> dict[str, Any]:
    """A circuit in the format of circuit-tracer's and Neuronpedia's viewers.

    Args:
        graph: of one prompt.
        record: of ``paths.json``; its paths are not used.
        labels: names of features.
    """
    shares, token_ids = influence(graph), record["token_ids"]
    n_layers = 1 + max(node.layer for node in graph)
    nodes, ids = [], {}
    for node, data in graph.nodes(data=True):
        layer = {"embed": "E", "target": str(n_layers)}.get(node.kind, str(max(node.layer, 0)))
        number = token_ids[node.token] if node.kind == "embed" else max(node.unit, 0)
        if node.kind in ("feature", "embed", "target"):  # as the viewers name them
            ids[node] = f"{layer}_{number}_{node.token}"
        else:
            ids[node] = f"{node.kind}_{node.key.partition('/')[2].replace('/', '_')}"
        nodes.append(
            {
                "node_id": ids[node],
                "feature": node.unit if node.kind == "feature" else None,
                "layer": layer,
                "ctx_idx": node.token,
                "feature_type": FEATURE_TYPES.get(node.kind, "mlp reconstruction error"),
                "jsNodeId": f"{layer}_{number}-{node.token}",
                "clerp": _label(str(node), labels),
                "influence": shares[node],
                "activation": data.get("activation"),
                "is_target_logit": node.kind == "target",
            }
        )
    links = [
        {"source": ids[start], "target": ids[end], "weight": weight}
        for start, end, weight in graph.edges(data="path_attribution")
    ]
    return {
        "metadata": {
            "slug": re.sub(r"[^A-Za-z0-9.-]+", "-", record["name"]),
            "scan": record["model"],
            "prompt": record["prompt"],
            "prompt_tokens": record["tokens"],
            "info": {"generator": {"name": "transcoders"}},
        },
        "qParams": {"pinnedIds": [], "supernodes": [], "linkType": "both", "clickedId": ""},
        "nodes": nodes,
        "links": links,
    }


def _label(name: str, labels: Labels) -> str:
    """The name of a node, and for a feature what it is about."""
    label = labels.get(name.partition("@")[0])
    return name if label is None else f"{name}: {shown(label)}"
