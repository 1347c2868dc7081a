"""A circuit as one self-contained, interactive HTML page: layers up, tokens across."""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import networkx as nx
from markupsafe import Markup

from transcoders.circuits.graph import influence, prune_graph, without_remainders
from transcoders.circuits.labels import Labels
from transcoders.circuits.notation import Node
from transcoders.circuits.paths import ComputationalPath, strongest
from transcoders.circuits.trace import Notes
from transcoders.contents import relative
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
"""Nodes that a page holds in any case."""
HELD = 0.98
"""Share of the influence that it holds of a larger graph."""
N_ROWS = 15
"""Rows of the tables for paper, and for readers without a script."""


def circuit_page(
    graph: nx.DiGraph,
    *,
    title: str,
    tokens: list[str],
    summary: str,
    notes: Notes,
    target_name: str = "target",
    paths: Sequence[ComputationalPath] = (),
    labels: Labels | None = None,
    links: Mapping[str, str] | None = None,
    article: str = "",
) -> str:
    """The page of one circuit.

    Args:
        graph: of one prompt, unpruned. The reader chooses how much of it to see.
        title: heading.
        tokens: of the prompt, as texts.
        summary: a sentence or two below the heading.
        notes: lists to show with features.
        target_name: what a target that is no feature is called.
        paths: that the graph is made of, for a table.
        labels: of features, by names such as ``tc20[1706]``.
        links: addresses of features in the feature browser, relative to the page, by the same
            names.
        article: the address of the article that the page belongs to, if it does.
    """
    shares = influence(graph)
    parts = without_remainders(graph)
    held = graph if len(parts) <= LIGHT else prune_graph(graph, HELD)
    target = graph.graph["target"]
    nodes = sorted(held)
    place = {node: number for number, node in enumerate(nodes)}
    data = {
        "target": target.key,
        "target_name": one_line(target_name),
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
            name: _feature(name, notes, labels or {}, links or {})
            for name in sorted({node.name for node in nodes if node.kind == "feature"})
        },
    }
    ranked = [node for node in shares if node in parts and node in held]
    return render(
        "transcoders.circuits",
        "circuit.html.j2",
        title=title,
        summary=summary,
        article=article,
        tokens=data["tokens"],
        kinds=KINDS,
        style=Markup(template(__package__, "circuit.css")),
        script=Markup("\n".join(template(__package__, f"circuit_{name}.js") for name in SCRIPTS)),
        strongest_nodes=[
            _row(held, node, shares[node], tokens, labels or {}) for node in ranked[:N_ROWS]
        ],
        strongest_paths=[
            (f"{path.attribution:+.3f}", str(path)) for path in strongest(list(paths), N_ROWS)
        ],
        # Only "<" could end the script element.
        data=Markup(json.dumps(data, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")),
    )


def feature_links(
    features: Iterable[str], pages: Mapping[int, Path], folder: Path
) -> dict[str, str]:
    """Addresses of features in the feature browser, relative to the folder of a circuit.

    Args:
        features: names such as ``tc20[1706]`` of features that are there.
        pages: by layer, the page with its transcoder's features. A feature of any other layer gets
            no address.
        folder: of the circuit.
    """
    links = {}
    for name in features:
        layer, unit = map(int, re.findall(r"\d+", name))
        if layer in pages:
            links[name] = f"{relative(pages[layer], folder)}#{unit}"
    return links


def _node(graph: nx.DiGraph, node: Node, share: float) -> dict[str, Any]:
    fields = ("kind", "layer", "unit", "token", "source", "attribution", "activation")
    known = graph.nodes[node]
    data = {"id": node.key, "row": node.row, "influence": share}
    data |= {name: known[name] for name in fields if name in known}
    return data | ({"feature": node.name} if node.kind == "feature" else {})


def _feature(name: str, notes: Notes, labels: Labels, links: Mapping[str, str]) -> dict[str, Any]:
    """What the panel says of a feature. Its parts are left out where nothing is known."""
    data: dict[str, Any] = {"lists": notes.get(name, [])}
    if (label := labels.get(name)) is not None:
        score = None if math.isnan(label.score) else label.score  # which JSON does not have
        data["label"] = label._asdict() | {"score": score, "trusted": label.is_trusted}
    if name in links:
        data["link"] = links[name]
    return data


def _row(
    graph: nx.DiGraph, node: Node, share: float, tokens: list[str], labels: Labels
) -> tuple[str, ...]:
    """A row of the table of nodes: name, token, attribution, influence."""
    label = labels.get(node.name)
    name = f"{node}: {label.text}" if label is not None and label.is_trusted else str(node)
    return name, node.quoted(tokens), f"{graph.nodes[node]['attribution']:+.3f}", f"{share:.1%}"
