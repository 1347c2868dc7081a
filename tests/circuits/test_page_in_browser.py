"""The page's script in a real browser: what it draws, and what a click does."""

import os
import re
import subprocess
from pathlib import Path

import networkx as nx
import pytest

from helpers_browser import CHROMIUM, NEEDS_CHROMIUM, QUIET
from helpers_circuits import some_targets
from transcoders.circuits.graph import build_graph
from transcoders.circuits.notation import REMAINDERS
from transcoders.circuits.page import circuit_page
from transcoders.circuits.paths import Search, find_paths
from transcoders.circuits.replacement import LocalReplacementModel

pytestmark = NEEDS_CHROMIUM
CLICK = """
<script>
document.querySelector('[aria-label="{name}"]').dispatchEvent(new MouseEvent("click"));
</script>
"""


@pytest.fixture(scope="module")
def graph(mixed: LocalReplacementModel) -> nx.DiGraph:
    return build_graph(find_paths(mixed, some_targets(mixed)[0], Search(12, 3)))


@pytest.fixture(scope="module")
def page(graph: nx.DiGraph) -> str:
    feature = next(node for node in graph if node.kind == "feature")
    notes = {str(feature).partition("@")[0]: [("Text", [("</b> & some", "1.00")])]}
    tokens = [f"w{number}" for number in range(8)]
    return circuit_page(graph, title="A page", tokens=tokens, summary="Short.", notes=notes)


def rendered(page: str, folder: Path) -> str:
    """The document after its scripts ran."""
    path = folder / "page.html"
    path.write_text(page, encoding="utf-8")
    command = [
        CHROMIUM,
        *QUIET,
        f"--user-data-dir={folder / 'profile'}",
        "--dump-dom",
        path.as_uri(),
    ]
    environment = os.environ | {"XDG_CONFIG_HOME": str(folder), "XDG_CACHE_HOME": str(folder)}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=True, env=environment
    )
    return done.stdout


def test_every_node_and_edge_is_drawn_and_the_target_described(
    page: str, graph: nx.DiGraph, tmp_path: Path
) -> None:
    document = rendered(page, tmp_path)
    shown = graph.subgraph(node for node in graph if node.kind not in REMAINDERS)
    assert document.count('class="node"') == len(shown)
    assert document.count('fill="none"') == shown.number_of_edges()
    panel = document[document.index('<div id="panel"') :]
    assert f"<h2>{graph.graph['target']}</h2>" in panel
    assert "Reads from" in panel


def test_a_click_shows_a_node_with_its_notes_and_fades_what_it_has_no_part_in(
    page: str, graph: nx.DiGraph, tmp_path: Path
) -> None:
    feature = next(node for node in graph if node.kind == "feature")
    click = CLICK.format(name=feature)
    document = rendered(page.replace("</body>", f"{click}</body>"), tmp_path)
    panel = document[document.index('<div id="panel"') :]
    assert f"<h2>{feature}</h2>" in panel
    assert "&lt;/b&gt; &amp; some" in panel
    assert document.count('class="node picked"') == 1
    near = nx.ancestors(graph, feature) | nx.descendants(graph, feature) | {feature}
    far = [node for node in graph if node not in near and node.kind not in REMAINDERS]
    assert len(re.findall(r'class="node faded"', document)) == len(far) > 0
