"""A circuit's picture is drawn whatever its tokens are, twice the same."""

import re
import time
from pathlib import Path

import networkx as nx
import pytest
from helpers_circuits import some_targets

from transcoders.circuits.drawing import draw_graph
from transcoders.circuits.graph import build_graph, prune_graph
from transcoders.circuits.model import Run
from transcoders.circuits.paths import Search, find_paths

TOKENS = ["<|endoftext|>", "<b>", '"', "\n", "{a|b}", "&", "\\", "é"]


@pytest.fixture(scope="module")
def graph(mixed_run: Run) -> nx.DiGraph:
    target = some_targets(mixed_run)[0]
    paths = find_paths(mixed_run, target, Search(8, 3, sign="both"))
    return prune_graph(build_graph(paths), 0.9)


def test_a_pdf_and_a_png_are_written_and_nothing_else(graph: nx.DiGraph, tmp_path: Path) -> None:
    draw_graph(graph, TOKENS, tmp_path / "circuit")
    assert {path.name for path in tmp_path.iterdir()} == {"circuit.pdf", "circuit.png"}
    assert (tmp_path / "circuit.pdf").read_bytes().startswith(b"%PDF")
    assert (tmp_path / "circuit.png").read_bytes().startswith(b"\x89PNG")


def test_a_target_alone_can_be_drawn(graph: nx.DiGraph, tmp_path: Path) -> None:
    draw_graph(prune_graph(graph, 0.0), TOKENS, tmp_path / "circuit")
    assert (tmp_path / "circuit.png").stat().st_size > 0
