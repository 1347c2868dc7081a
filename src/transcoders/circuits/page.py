"""A circuit as one self-contained, interactive HTML page: layers up, tokens across."""

import json
from importlib.resources import files
from typing import Any

import networkx as nx
from jinja2 import Environment
from markupsafe import Markup

from transcoders.circuits.drawing import FILLS
from transcoders.circuits.graph import influence, without_remainders
from transcoders.circuits.labels import Labels, described
from transcoders.circuits.notation import REMAINDERS, Node
from transcoders.circuits.trace import Notes
from transcoders.context import one_line

REMAINDER_NAMES = {
    "bias": "… from biases",
    "error": "… from the errors of transcoders",
    "pruned": "… from parts not shown here",
}
LEGEND = {
    "target": "target",
    "feature": "transcoder feature",
    "head": "head",
    "mlp": "MLP without a transcoder",
    "embed": "embedding",
}


def circuit_page(
    graph: nx.DiGraph,
    *,
    title: str,
    tokens: list[str],
    summary: str,
    notes: Notes,
    labels: Labels,
) -> str:
    """The page of one circuit.

    Args:
        graph: of one prompt.
        title: heading.
        tokens: of the prompt, as texts.
        summary: a sentence or two below the heading.
        notes: lists to show with features.
        labels: names of features.
    """
    shares, shown = influence(graph), without_remainders(graph)
    data = {
        "target": graph.graph["target"].key,
        "tokens": [one_line(token) for token in tokens],
        "rows": {node.row: node.row_name for node in sorted(shown)},
        "nodes": [
            _node(graph, node, shares[node], tokens, notes, labels) for node in sorted(shown)
        ],
        "edges": [
            {"source": start.key, "target": end.key, "weight": weight}
            for start, end, weight in sorted(shown.edges(data="path_attribution"))
        ],
    }
    source = files("transcoders.circuits").joinpath("circuit.html.j2").read_text(encoding="utf-8")
    template = Environment(autoescape=True, keep_trailing_newline=True).from_string(source)
    return template.render(
        title=title,
        tokens=data["tokens"],
        summary=summary,
        legend=[(LEGEND[kind], FILLS[kind]) for kind in LEGEND],
        # Only "<" could end the script element.
        data=Markup(json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")),
    )


def _node(
    graph: nx.DiGraph, node: Node, share: float, tokens: list[str], notes: Notes, labels: Labels
) -> dict[str, Any]:
    data, feature = graph.nodes[node], str(node).partition("@")[0]
    facts = described(labels[feature]) if feature in labels else []
    facts += [("attribution", f"{data['attribution']:+.3g}"), ("influence", f"{share:.1%}")]
    if "activation" in data:
        facts.append(("activation", f"{data['activation']:.3g}"))
    for start, _, weight in graph.in_edges(node, data="path_attribution"):
        if start.kind in REMAINDERS:
            facts.append((REMAINDER_NAMES[start.kind], f"{weight:+.3g}"))
    where = f"“{tokens[node.token]}” @{node.token}"
    if node.kind == "head":
        where = f"“{tokens[node.source]}” @{node.source} → {where}"
    return {
        "id": node.key,
        "name": str(node),
        "kind": node.kind,
        "colour": FILLS["target" if node == graph.graph["target"] else node.kind],
        "row": node.row,
        "token": node.token,
        "influence": share,
        "facts": [*facts, ("token", where)],
        "lists": notes.get(feature, []),
    }
