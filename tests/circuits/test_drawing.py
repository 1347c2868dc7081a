"""A circuit's picture is drawn whatever its tokens are, twice the same."""

import os
import time
from pathlib import Path

import networkx as nx
import pygraphviz
import pytest

from helpers_circuits import some_targets
from transcoders.circuits.drawing import NEGATIVE, POSITIVE, draw_graph
from transcoders.circuits.graph import build_graph, prune_graph
from transcoders.circuits.notation import REMAINDERS
from transcoders.circuits.paths import Search, find_paths
from transcoders.circuits.replacement import LocalReplacementModel

TOKENS = ["<|endoftext|>", "<b>", '"', "\n", "{a|b}", "&", "\\", "é"]


@pytest.fixture(scope="module")
def graph(mixed: LocalReplacementModel) -> nx.DiGraph:
    target = some_targets(mixed)[0]
    paths = find_paths(mixed, target, Search(8, 3, sign="both"))
    return prune_graph(build_graph(paths), 0.9)


def test_drawing_twice_gives_the_same_bytes(graph: nx.DiGraph, tmp_path: Path) -> None:
    draw_graph(graph, TOKENS, tmp_path / "one")
    time.sleep(1.1)  # a PDF would hold the time, in seconds
    draw_graph(graph, TOKENS, tmp_path / "two")
    for suffix in (".png", ".pdf"):
        one, two = ((tmp_path / name).with_suffix(suffix).read_bytes() for name in ("one", "two"))
        assert one == two


def test_nothing_of_the_machines_fonts_is_said(
    graph: nx.DiGraph, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    draw_graph(graph, TOKENS, tmp_path / "circuit")
    assert capfd.readouterr() == ("", "")
    os.write(2, b"heard again")
    assert capfd.readouterr().err == "heard again"


def test_every_node_but_remainders_is_in_its_row_and_every_edge_between_them_is_drawn(
    graph: nx.DiGraph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = []
    layout = pygraphviz.AGraph.layout

    def watched(picture: pygraphviz.AGraph, program: str) -> None:
        pictures.append(picture)
        layout(picture, program)

    monkeypatch.setattr(pygraphviz.AGraph, "layout", watched)
    draw_graph(graph, TOKENS, tmp_path / "circuit")
    (picture,) = pictures
    shown = {node.key: node for node in graph if node.kind not in REMAINDERS}
    assert {node for node in picture.nodes() if not node.startswith("row")} == set(shown)
    edges = {
        (start.key, end.key): weight
        for start, end, weight in graph.edges(data="path_attribution")
        if start.kind not in REMAINDERS
    }
    drawn = {edge: edge.attr for edge in picture.edges() if edge.attr["style"] != "invis"}
    assert set(drawn) == set(edges)
    for edge, attributes in drawn.items():
        is_positive = edges[edge] > 0
        assert attributes["color"] == (POSITIVE if is_positive else NEGATIVE)
        assert attributes["style"] == ("solid" if is_positive else "dashed")
    widest = max(drawn, key=lambda edge: float(drawn[edge]["penwidth"]))
    assert abs(edges[widest]) == max(map(abs, edges.values()))
    # All nodes of a row are at one height.
    heights = {
        (node.row, picture.get_node(key).attr["pos"].split(",")[1]) for key, node in shown.items()
    }
    assert len(heights) == len({node.row for node in shown.values()})
