"""A circuit as one self-contained, interactive HTML page: layers up, tokens across."""

import json
from importlib.resources import files
from typing import Any

import networkx as nx
from jinja2 import Environment
from markupsafe import Markup

from transcoders.circuits.drawing import FILLS
from transcoders.circuits.graph import LEAVES, influence
from transcoders.circuits.notation import Node

COLOURS = FILLS | dict.fromkeys(LEAVES, "#ffffff")
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
    notes: dict[str, list[tuple[str, list[tuple[str, str]]]]],
) -> str:
    """The page of one circuit.

    Args:
        graph: of one prompt.
        title: heading.
        tokens: of the prompt, as texts.
        summary: a sentence or two below the heading.
        notes: lists to show with a feature, by its name without the token: title, and rows of text
            and value.
    """
    shares, target = influence(graph), graph.graph["target"]
    nodes = [
        _node(node, data, shares[node], node == target, tokens, notes)
        for node, data in sorted(graph.nodes(data=True))
    ]
    rows = {node.row: node.row_name for node in graph}
    data = {
        "target": target.key,
        "tokens": [token.replace("\n", "⏎") for token in tokens],
        "rows": rows,
        "nodes": nodes,
        "edges": [
            {"source": start.key, "target": end.key, "weight": weight}
            for start, end, weight in sorted(graph.edges(data="path_attribution"))
        ],
    }
    source = files("transcoders.circuits").joinpath("circuit.html.j2").read_text(encoding="utf-8")
    template = Environment(autoescape=True, keep_trailing_newline=True).from_string(source)
    # Inside a script element only "<" could end it; everything else is JSON.
    encoded = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")
    return template.render(
        title=title,
        tokens=data["tokens"],
        summary=summary,
        legend=[(LEGEND[kind], COLOURS[kind]) for kind in LEGEND],
        data=Markup(encoded),
    )


def _node(
    node: Node,
    data: dict[str, Any],
    share: float,
    is_target: bool,
    tokens: list[str],
    notes: dict[str, list[tuple[str, list[tuple[str, str]]]]],
) -> dict[str, Any]:
    facts = [("attribution", f"{data['attribution']:+.3g}"), ("influence", f"{share:.1%}")]
    if "activation" in data:
        facts.append(("activation", f"{data['activation']:.3g}"))
    where = f"“{tokens[node.token]}” @{node.token}"
    if node.kind == "head":
        where = f"“{tokens[node.source]}” @{node.source} → {where}"
    facts.append(("token", where))
    return {
        "id": node.key,
        "name": str(node),
        "kind": node.kind,
        "colour": COLOURS["target" if is_target else node.kind],
        "row": node.row,
        "token": node.token,
        "influence": share,
        "facts": facts,
        "lists": notes.get(str(node).partition("@")[0], []),
    }
