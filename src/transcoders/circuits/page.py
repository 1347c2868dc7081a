"""A circuit as one self-contained, interactive HTML page: layers up, tokens across."""

import json
import math
from collections.abc import Mapping
from typing import Any

import networkx as nx
from markupsafe import Markup

from transcoders.circuits.features import Lists
from transcoders.circuits.graph import (
    build_graph,
    influence,
    prune_graph,
    without_remainders,
)
from transcoders.circuits.labels import Labels
from transcoders.circuits.notation import Node, layers_in_words
from transcoders.circuits.paths import ComputationalPath, strongest
from transcoders.context import one_line
from transcoders.templates import render, template

KINDS = {
    "feature": "features",
    "head": "heads",
    "mlp": "MLPs",
    "embed": "embeddings",
    "rest": "errors and biases",
}
"""What a reader can show and hide, and what the page calls it."""
SCRIPTS = ("graph", "view", "texts", "map", "panel", "actions")
"""The page's scripts, in their order."""
LIGHT = 300
"""A page holds all nodes of a graph with up to this many."""
HELD = 0.98
"""Of a larger graph, it holds the nodes with this share of the influence."""
N_ROWS = 15
"""Rows of the tables for paper, and for readers without a script."""


def circuit_page(
    record: dict[str, Any],
    paths: list[ComputationalPath],
    labels: Labels,
    *,
    pages: Mapping[int, str],
    article: str = "",
) -> str:
    """The page of one circuit.

    Args:
        record: of ``paths.json``.
        paths: that it holds. The reader chooses how much of their graph to see.
        labels: of features, by names such as ``tc20[1706]``.
        pages: by layer, the address of the page of the feature browser with all features that have
            a label.
        article: the address of the article that the page belongs to, if it does.
    """
    graph, tokens = build_graph(paths), record["tokens"]
    shares, parts = influence(graph), without_remainders(graph)
    held = graph if len(parts) <= LIGHT else prune_graph(graph, HELD)
    target = graph.graph["target"]
    nodes = sorted(held)
    place = {node: number for number, node in enumerate(nodes)}
    data = {
        "target": target.key,
        "target_name": one_line(record["target"]["name"]),
        "tokens": [one_line(token) for token in tokens],
        "found": len(parts),
        "influence": sum(shares[node] for node in parts if node != target),
        "rows": {node.row: node.row_name for node in nodes},
        "nodes": [_node(held, node, shares.get(node, 0.0)) for node in nodes],
        "edges": [
            (place[start], place[end], weight)
            for start, end, weight in sorted(held.edges(data="path_attribution"))
        ],
        "features": {
            node.name: _feature(node, record["notes"], labels, pages)
            for node in sorted(nodes, key=lambda node: node.name)
            if node.kind == "feature"
        },
    }
    ranked = [node for node in shares if node in parts and node in held][:N_ROWS]
    return render(
        "transcoders.circuits",
        "circuit.html.j2",
        title=f"{record['name']}: why {record['target']['name']}?",
        summary=_summary(record),
        article=article,
        tokens=data["tokens"],
        kinds=KINDS,
        style=Markup(template(__package__, "circuit.css")),
        script=Markup("\n".join(template(__package__, f"circuit_{name}.js") for name in SCRIPTS)),
        strongest_nodes=[_row(held, node, shares[node], tokens, labels) for node in ranked],
        strongest_paths=[
            (f"{path.attribution:+.3f}", str(path)) for path in strongest(paths, N_ROWS)
        ],
        # Only "<" could end the script element.
        data=Markup(json.dumps(data, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")),
    )


def _summary(record: dict[str, Any]) -> str:
    layers, correlation = layers_in_words(record["transcoders"]), record["rank_correlation"]
    found = "undefined" if correlation is None else f"{correlation:.2f}"
    return (
        f"The target is {record['target']['value']:.3f}. Transcoders replace the MLPs of layers "
        f"{layers}; every other MLP is a single node at each token. Spearman's rank correlation "
        f"between attribution and the effect of ablating each node in the real model is {found}."
    )


def _node(graph: nx.DiGraph, node: Node, share: float) -> dict[str, Any]:
    data = {"id": node.key, "row": node.row, "influence": share, **graph.nodes[node]}
    del data["name"]  # the page makes names of its own
    return data | ({"feature": node.name} if node.kind == "feature" else {})


def _feature(
    node: Node, notes: Mapping[str, Lists], labels: Labels, pages: Mapping[int, str]
) -> dict[str, Any]:
    """What the panel says of a feature. Its parts are left out where nothing is known."""
    data: dict[str, Any] = {"lists": notes.get(node.name, [])}
    if (label := labels.get(node.name)) is not None:
        score = None if math.isnan(label.score) else label.score  # which JSON does not have
        data["label"] = label._asdict() | {"score": score, "trusted": label.is_trusted}
        if node.layer in pages:
            data["link"] = f"{pages[node.layer]}#{node.unit}"
    return data


def _row(
    graph: nx.DiGraph, node: Node, share: float, tokens: list[str], labels: Labels
) -> tuple[str, ...]:
    """A row of the table of nodes: name, token, attribution, influence."""
    label = labels.get(node.name)
    name = f"{node}: {label.text}" if label is not None and label.is_trusted else str(node)
    return name, node.quoted(tokens), f"{graph.nodes[node]['attribution']:+.3f}", f"{share:.1%}"
