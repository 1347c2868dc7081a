"""A circuit as a picture, laid out by Graphviz: causes below, effects above."""

import itertools
import os
import re
import tempfile
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import networkx as nx

from transcoders.circuits.graph import prune_graph, without_remainders
from transcoders.circuits.labels import Labels, named
from transcoders.circuits.notation import Node
from transcoders.context import one_line
from transcoders.files import made_path
from transcoders.pictures import write_small

FILLS = {
    "target": "#F0E442",
    "feature": "#CFE5F3",
    "head": "#F9DCC4",
    "mlp": "#E6E6E6",
    "embed": "#CDEBDD",
}
POSITIVE, NEGATIVE = "#0072B2", "#D55E00"
CREATION_DATE = re.compile(rb"/CreationDate \(D:[^)]*\)")
"""Graphviz writes the time into every PDF. Everything else is the same each time."""
FONT_SETTINGS = "<fontconfig><dir>{fonts}</dir><cachedir>{cache}</cachedir></fontconfig>"
LINE, SHORT_LINE = 28, 18
"""The most characters in a line of a name; a brief picture has less room."""
PAGE_WIDTH = 5.5
"""The widest brief picture in inches: as wide as other figures, so that its type is as large."""
POINTS = 72
"""Points in an inch."""
WIDEST = 5.0
"""Width of the strongest edge, in points."""


def draw_graph(
    graph: nx.DiGraph, tokens: list[str], destination: Path, *, labels: Labels | None = None
) -> None:
    """Draw a graph without its remainder nodes, as ``.pdf`` and as ``.png``.

    The width of an edge shows the size of its path attribution. Positive edges are blue, negative
    ones orange and dashed.

    Args:
        graph: small enough to be looked at.
        tokens: of the prompt, as texts.
        destination: without suffix.
        labels: names of features.
    """
    with _matplotlibs_fonts():
        _write(_laid_out(graph, tokens, labels or {}, LINE), destination)


def draw_brief(
    graph: nx.DiGraph, tokens: list[str], destination: Path, *, labels: Labels | None = None
) -> None:
    """Draw as much of a graph as can be read on a phone: what fits into the width of a page.

    The arguments are those of :func:`draw_graph`. Ever more influence is kept, in steps of 5%,
    until it no longer fits. The first 5% are drawn even if they do not.
    """
    with _matplotlibs_fonts():
        picture = None
        for percent in range(5, 101, 5):
            shown = prune_graph(graph, percent / 100)
            wider = _laid_out(shown, tokens, labels or {}, SHORT_LINE)
            if picture is not None and _width(wider) > PAGE_WIDTH:
                break
            picture = wider
        _write(picture, destination)


def _laid_out(graph: nx.DiGraph, tokens: list[str], labels: Labels, line: int) -> Any:
    """A pygraphviz graph whose nodes and edges have their places."""
    import pygraphviz

    shown, target = without_remainders(graph), graph.graph["target"]
    picture = pygraphviz.AGraph(
        directed=True, rankdir="BT", ranksep="0.25", nodesep="0.18", fontname="DejaVu Sans"
    )
    picture.node_attr.update(
        shape="box", style="filled,rounded", color="#555555", penwidth="0.7", fontsize="10",
        fontname="DejaVu Sans", margin="0.08,0.04", height="0.3",
    )  # fmt: skip
    picture.edge_attr.update(arrowsize="0.6")
    for node, data in sorted(shown.nodes(data=True)):
        kind = "target" if node == target else node.kind
        picture.add_node(
            node.key,
            label="\n".join(_lines(node, tokens, labels, data["attribution"], line)),
            fillcolor=FILLS[kind],
        )
    largest = max((abs(w) for *_, w in shown.edges(data="path_attribution")), default=1.0)
    for start, end, weight in sorted(shown.edges(data="path_attribution")):
        picture.add_edge(
            start.key,
            end.key,
            penwidth=f"{max(WIDEST * abs(weight) / largest, 0.4):.2f}",
            color=POSITIVE if weight > 0 else NEGATIVE,
            style="solid" if weight > 0 else "dashed",
        )
    # A chain of row names gives every row of the model its own rank.
    rows = sorted({node.row: node.row_name for node in shown}.items())
    for row, name in rows:
        picture.add_node(f"row{row}", label=name, shape="plaintext", style="", fontcolor="#555555")
        level = [node.key for node in sorted(shown) if node.row == row]
        picture.add_subgraph([f"row{row}", *level], rank="same")
    for (below, _), (above, _) in itertools.pairwise(rows):
        picture.add_edge(f"row{below}", f"row{above}", style="invis")
    picture.layout("dot")
    return picture


def _width(picture: Any) -> float:
    """Of a graph with places, in inches."""
    left, _, right, _ = picture.graph_attr["bb"].split(",")
    return (float(right) - float(left)) / POINTS


def _write(picture: Any, destination: Path) -> None:
    for suffix, options in ((".pdf", ""), (".png", "-Gdpi=150")):
        with made_path(destination.with_suffix(suffix)) as temporary:
            picture.draw(str(temporary), format=suffix[1:], args=options)
            if suffix == ".pdf":
                content = temporary.read_bytes()
                # Replaced by as many blanks, since a PDF counts its bytes.
                dateless = CREATION_DATE.sub(lambda date: b" " * len(date[0]), content)
                temporary.write_bytes(dateless)
            else:
                write_small(temporary)


def _lines(
    node: Node, tokens: list[str], labels: Labels, attribution: float, line: int
) -> list[str]:
    """What a node says: what it is, the name of a feature, its token, its attribution."""
    label = labels.get(node.name)
    name = [] if label is None else textwrap.wrap(one_line(named(label)), line)
    lines = [str(node), *name, node.quoted(tokens), f"{attribution:+.2f}"]
    return [line.replace("\\", "\\\\") for line in lines]  # Graphviz reads one as an escape


@contextmanager
def _matplotlibs_fonts() -> Iterator[None]:
    """Let Graphviz use the fonts of our other figures, which are the same on every machine.

    Graphviz's font library also reads the machine's own settings and remarks on them. The remarks
    go nowhere, so that no page holds them.
    """
    fonts, stderr = Path(mpl.get_data_path()) / "fonts" / "ttf", os.dup(2)
    with tempfile.TemporaryDirectory() as folder, Path(os.devnull).open("w") as nowhere:
        settings = Path(folder) / "fonts.conf"
        settings.write_text(FONT_SETTINGS.format(fonts=fonts, cache=folder), encoding="utf-8")
        os.environ["FONTCONFIG_FILE"] = str(settings)  # read once in a process, at the first use
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            del os.environ["FONTCONFIG_FILE"]
