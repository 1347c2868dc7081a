"""A circuit as a picture, laid out by Graphviz: causes below, effects above, a row a layer."""

import itertools
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib as mpl
import networkx as nx

from transcoders.circuits.graph import without_remainders
from transcoders.circuits.notation import Node
from transcoders.files import made_path

FILLS = {
    "target": "#F0E442",
    "feature": "#CFE5F3",
    "head": "#F9DCC4",
    "mlp": "#E6E6E6",
    "embed": "#CDEBDD",
    "error": "#F3D1E2",
}
POSITIVE, NEGATIVE = "#0072B2", "#D55E00"
CREATION_DATE = re.compile(rb"/CreationDate \(D:[^)]*\)")
"""Written into every PDF by Graphviz's library; all else there is the same every time."""
FONT_SETTINGS = "<fontconfig><dir>{fonts}</dir><cachedir>{cache}</cachedir></fontconfig>"
WIDEST = 5.0
"""Points, of the strongest edge."""


def draw_graph(graph: nx.DiGraph, tokens: list[str], destination: Path) -> None:
    """Write ``destination`` with the suffixes ``.pdf`` and ``.png``.

    Remainder nodes are left out. Edges are as wide as their path attribution is large: blue where
    it is positive, orange and dashed where it is negative.

    Args:
        graph: small enough to be looked at.
        tokens: of the prompt, as texts.
        destination: without suffix.
    """
    import pygraphviz

    shown = without_remainders(graph)
    picture = pygraphviz.AGraph(
        directed=True, rankdir="BT", ranksep="0.25", nodesep="0.18", fontname="DejaVu Sans"
    )
    picture.node_attr.update(
        shape="box", style="filled,rounded", color="#555555", penwidth="0.7", fontsize="10",
        fontname="DejaVu Sans", margin="0.08,0.04", height="0.3",
    )  # fmt: skip
    picture.edge_attr.update(arrowsize="0.6")
    target = graph.graph["target"]
    for node, data in sorted(shown.nodes(data=True)):
        kind = "target" if node == target else node.kind
        picture.add_node(
            node.key,
            label=f"{node}\n{_quoted(tokens, node)}\n{data['attribution']:+.2f}",
            fillcolor=FILLS.get(kind, "#ffffff"),
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
    # A chain of row names, so that every row of the model has a rank of its own.
    rows = sorted({node.row: node.row_name for node in shown}.items())
    for row, name in rows:
        picture.add_node(f"row{row}", label=name, shape="plaintext", style="", fontcolor="#555555")
        level = [node.key for node in sorted(shown) if node.row == row]
        picture.add_subgraph([f"row{row}", *level], rank="same")
    for (below, _), (above, _) in itertools.pairwise(rows):
        picture.add_edge(f"row{below}", f"row{above}", style="invis")
    with _matplotlibs_fonts():
        picture.layout("dot")
        for suffix, options in ((".pdf", ""), (".png", "-Gdpi=150")):
            with made_path(destination.with_suffix(suffix)) as temporary:
                picture.draw(str(temporary), format=suffix[1:], args=options)
                if suffix == ".pdf":
                    content = temporary.read_bytes()
                    temporary.write_bytes(CREATION_DATE.sub(_same_length, content))


def _quoted(tokens: list[str], node: Node) -> str:
    """The token's text, or for a head what it reads and where it writes."""
    text = tokens[node.token].replace("\n", "⏎")
    if node.kind == "head":
        return f"“{tokens[node.source]}” → “{text}”".replace("\n", "⏎")
    return f"“{text}”"


@contextmanager
def _matplotlibs_fonts() -> Iterator[None]:
    """Let Graphviz use the fonts of our other figures, the same everywhere, and no others.

    Its font library also looks at the machine's own settings, and remarks on what it does not know
    in them; those remarks are dropped, so that no page holds them.
    """
    fonts = Path(mpl.get_data_path()) / "fonts" / "ttf"
    before, stderr = os.environ.get("FONTCONFIG_FILE"), os.dup(2)
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as said:
        settings = Path(folder) / "fonts.conf"
        settings.write_text(FONT_SETTINGS.format(fonts=fonts, cache=folder), encoding="utf-8")
        os.environ["FONTCONFIG_FILE"] = str(settings)  # read once in a process, at the first use
        os.dup2(said.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            del os.environ["FONTCONFIG_FILE"]
            if before is not None:
                os.environ["FONTCONFIG_FILE"] = before
            said.seek(0)
            lines = said.read().decode(errors="replace").splitlines(keepends=True)
            sys.stderr.writelines(line for line in lines if not line.startswith("Fontconfig"))


def _same_length(date: re.Match[bytes]) -> bytes:
    """Blanks: a PDF counts its bytes."""
    return b" " * len(date[0])
