"""A circuit's record, viewers' graph, page and picture hold what its graph holds."""

import json
import math
import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import jsonschema
import networkx as nx
import pygraphviz
import pytest

from helpers_browser import CHROMIUM, NEEDS_CHROMIUM, QUIET
from helpers_circuits import some_targets
from transcoders.circuits.drawing import NEGATIVE, POSITIVE, draw_graph
from transcoders.circuits.export import (
    FEATURE_TYPES,
    attribution_graph,
    feature_number,
    paths_of_record,
    paths_record,
)
from transcoders.circuits.graph import build_graph, influence, prune_graph
from transcoders.circuits.notation import CONTRIBUTORS, REMAINDERS, Node
from transcoders.circuits.page import circuit_page
from transcoders.circuits.paths import ComputationalPath, Search, find_paths
from transcoders.circuits.replacement import LocalReplacementModel
from transcoders.circuits.trace import Circuit
from transcoders.circuits.vectors import logit_target

TOKENS = ["<|endoftext|>", "<b>", '"', "\n", "{a|b}", "&", "\\", "é"]
SCHEMA = json.loads(Path(__file__).with_name("attribution_graph.schema.json").read_text())
CLICK = """
<script>
document.querySelector('[aria-label="{name}"]').dispatchEvent(new MouseEvent("click"));
</script>
"""
Edges = dict[tuple[str, str], float]


def circuit_of(local: LocalReplacementModel, target: Any, search: Search) -> Circuit:
    paths = find_paths(local, target, search)
    return Circuit("w0 w1", search, local, target, TOKENS, paths, build_graph(paths))


@pytest.fixture(scope="module", params=["logits", "feature"])
def circuit(request: pytest.FixtureRequest, mixed: LocalReplacementModel) -> Circuit:
    target = some_targets(mixed)[0 if request.param == "logits" else -1]
    return circuit_of(mixed, target, Search(30, 4, sign="both"))


def parts_of(graph: nx.DiGraph) -> tuple[dict[str, Node], Edges]:
    """The nodes of a graph but its remainders, and the edges between them, by key."""
    shown = {node.key: node for node in graph if node.kind not in REMAINDERS}
    edges = {
        (start.key, end.key): weight
        for start, end, weight in graph.edges(data="path_attribution")
        if start.key in shown
    }
    return shown, edges


def exported(circuit: Circuit, labels: dict[str, str] | None = None) -> dict[str, Any]:
    local, target = circuit.local, circuit.target
    record = {
        "name": "a circuit.1", "model": "tiny", "prompt": circuit.prompt, "tokens": circuit.tokens,
        "token_ids": local.passed.tokens.tolist(), "d_vocab": local.passed.logits.shape[-1],
        "n_layers": local.replacement.n_layers, "notes": {},
        "transcoders": list(local.replacement.transcoders),
        "target": {
            "name": target.name, "logits": [
                {"token": str(token), "token_id": token, "weight": weight, "probability": 0.25}
                for token, weight in target.logits.items()
            ],
        },
    }  # fmt: skip
    return attribution_graph(circuit.graph, record, labels=labels)


def with_an_output(circuit: Circuit) -> int:
    """How many nodes and edges the viewers' graph has beyond ours: a feature needs an output."""
    return int(circuit.target.node.kind == "feature")


def fields(path: ComputationalPath) -> dict[str, Any]:
    """All of a path but its relatives."""
    return {k: v for k, v in vars(path).items() if k not in ("parent", "children")}


def test_paths_come_back_as_they_were(circuit: Circuit) -> None:
    paths = circuit.paths
    back = paths_of_record(json.loads(json.dumps(paths_record(paths))))
    assert [fields(path) for path in back] == [fields(path) for path in paths]
    assert nx.utils.graphs_equal(build_graph(back), circuit.graph)


def test_the_viewers_graph_has_every_node_and_edge_once(circuit: Circuit) -> None:
    record, graph = exported(circuit), circuit.graph
    jsonschema.validate(record, SCHEMA)
    ids = [node["node_id"] for node in record["nodes"]]
    more = with_an_output(circuit)
    assert len(ids) == len(set(ids)) == graph.number_of_nodes() + more
    ends = {(link["source"], link["target"]) for link in record["links"]}
    assert len(ends) == graph.number_of_edges() + more
    assert {end for both in ends for end in both} == set(ids)
    weights = sorted(link["weight"] for link in record["links"])
    expected = [weight for *_, weight in graph.edges(data="path_attribution")]
    assert weights == sorted(expected + [circuit.target.value] * more)
    assert min(weights) < 0


def test_the_viewers_nodes_say_what_ours_are(circuit: Circuit) -> None:
    ids, labels = circuit.local.passed.tokens.tolist(), {}
    for node in circuit.graph:
        if node.kind == "feature" and not labels:
            labels[str(node).partition("@")[0]] = "in a list"
    nodes = circuit.graph.nodes(data=True)
    for shown, (node, data) in zip(exported(circuit, labels)["nodes"], nodes, strict=False):
        assert shown["ctx_idx"] == node.token
        assert shown["feature_type"] == FEATURE_TYPES[node.kind]
        assert shown["is_target_logit"] == (node.kind == "target")
        is_feature = node.kind == "feature"
        assert shown["activation"] == (data["activation"] if is_feature else None)
        if node.kind in ("feature", "head", "mlp"):
            assert shown["layer"] == str(node.layer)
        if is_feature:
            assert shown["node_id"] == f"{node.layer}_{node.unit}_{node.token}"
        if node.kind == "embed":
            assert shown["node_id"] == f"E_{ids[node.token]}_{node.token}"
        if node.kind == "target":
            assert shown["clerp"].startswith('Output "')
        else:
            text = labels.get(str(node).partition("@")[0])
            assert shown["clerp"] == (f"{node}: {text}" if text else str(node))


def test_a_target_that_is_a_feature_has_an_output(mixed: LocalReplacementModel) -> None:
    record = exported(circuit_of(mixed, some_targets(mixed)[-1], Search(5, 2)))
    first, last = record["nodes"][0], record["nodes"][-1]
    assert last["feature_type"] == "logit" and last["is_target_logit"]
    assert last["clerp"].endswith("(p=1.000)")
    (link,) = [link for link in record["links"] if link["target"] == last["node_id"]]
    assert link["source"] == first["node_id"]


def test_a_single_logit_is_its_token_and_a_difference_one_beyond_the_vocabulary(
    mixed: LocalReplacementModel,
) -> None:
    d_vocab = mixed.passed.logits.shape[-1]
    for weights, clerp, number in (
        ({7: 1.0}, 'Output "7" (p=0.250)', 7),
        ({7: 1.0, 9: -1.0}, 'Output "a difference" (p=0.000)', d_vocab),
        ({7: -1.0}, 'Output "a difference" (p=-0.250)', d_vocab),
    ):
        target = logit_target(mixed, weights, -1, name="a difference")
        shown = exported(circuit_of(mixed, target, Search(5, 2, sign="both")))["nodes"][0]
        assert (shown["clerp"], shown["feature"]) == (clerp, number)


def test_influence_adds_up_from_the_strongest_node(circuit: Circuit) -> None:
    nodes, shares = exported(circuit)["nodes"], influence(circuit.graph)
    by_node = dict(zip(circuit.graph, nodes, strict=False))
    counted = [node for node in circuit.graph if node.kind != "target"]
    total = sum(shares[node] for node in counted)
    for node in counted:
        at_least = sum(shares[other] for other in counted if shares[other] >= shares[node])
        assert by_node[node]["influence"] <= at_least / total + 1e-9
        assert by_node[node]["influence"] >= shares[node] / total - 1e-9
    assert max(node["influence"] or 0 for node in nodes) == 1.0


@pytest.mark.parametrize(("layer", "unit"), [(0, 0), (0, 7), (7, 0), (30, 24575)])
def test_the_number_of_a_feature_tells_its_layer_and_index(layer: int, unit: int) -> None:
    diagonal = (math.isqrt(8 * feature_number(layer, unit) + 1) - 1) // 2
    index = feature_number(layer, unit) - diagonal * (diagonal + 1) // 2
    assert (diagonal - index, index) == (layer, unit)


def test_what_the_viewers_take_for_one_node_is_one_where_errors_are_parts_and_remainders(
    mixed: LocalReplacementModel,
) -> None:
    for target in some_targets(mixed):
        circuit = circuit_of(mixed, target, Search(40, 3, CONTRIBUTORS, sign="both"))
        nodes = exported(circuit)["nodes"]
        ids = {node["node_id"] for node in nodes}
        places = {(node["layer"], node["feature"], node["ctx_idx"]) for node in nodes}
        expected = len(circuit.graph) + with_an_output(circuit)
        assert len(ids) == len(places) == len(nodes) == expected


def test_the_page_has_the_numbers_of_the_graph_and_fetches_nothing(circuit: Circuit) -> None:
    graph, shares = circuit.graph, influence(circuit.graph)
    page = circuit_page(graph, title="A page", tokens=TOKENS, summary="Short.", notes={})
    assert set(re.findall(r"https?://[^\s\"'<>]+", page)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|import\(", page)
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found
    data = json.loads(found[1])
    shown, edges = parts_of(graph)
    assert data["target"] == graph.graph["target"].key
    assert edges == {(edge["source"], edge["target"]): edge["weight"] for edge in data["edges"]}
    assert sorted(node["id"] for node in data["nodes"]) == sorted(shown)
    for written in data["nodes"]:
        node = shown[written["id"]]
        assert written["name"] == str(node)
        assert written["influence"] == shares[node]
        assert (written["token"], written["row"]) == (node.token, node.row)
        given = [float(value) for name, value in written["facts"] if name.startswith("…")]
        reads = graph.in_edges(node, data="path_attribution")
        remainders = [weight for start, _, weight in reads if start.kind in REMAINDERS]
        assert given == pytest.approx(remainders, rel=1e-2)


def rendered(page: str, folder: Path) -> str:
    """The document after its scripts ran in a real browser."""
    path = folder / "page.html"
    path.write_text(page, encoding="utf-8")
    options = [*QUIET, f"--user-data-dir={folder / 'profile'}", "--dump-dom", path.as_uri()]
    environment = os.environ | {"XDG_CONFIG_HOME": str(folder), "XDG_CACHE_HOME": str(folder)}
    return subprocess.run(
        [str(CHROMIUM), *options], capture_output=True, text=True, timeout=120, check=True,
        env=environment,
    ).stdout  # fmt: skip


@NEEDS_CHROMIUM
def test_the_page_draws_everything_and_a_click_shows_a_node_with_its_notes(
    mixed: LocalReplacementModel, tmp_path: Path
) -> None:
    graph = circuit_of(mixed, some_targets(mixed)[0], Search(12, 3)).graph
    feature = next(node for node in graph if node.kind == "feature")
    notes = {str(feature).partition("@")[0]: [("Text", [("</b> & some", "1.00")])]}
    page = circuit_page(graph, title="A page", tokens=TOKENS, summary="Short.", notes=notes)
    document = rendered(page, tmp_path)
    shown, edges = parts_of(graph)
    assert document.count('class="node"') == len(shown)
    assert document.count('fill="none"') == len(edges)
    panel = document[document.index('<div id="panel"') :]
    assert f"<h2>{graph.graph['target']}</h2>" in panel
    assert "Reads from" in panel

    click = CLICK.format(name=feature)
    document = rendered(page.replace("</body>", f"{click}</body>"), tmp_path)
    panel = document[document.index('<div id="panel"') :]
    assert f"<h2>{feature}</h2>" in panel
    assert "&lt;/b&gt; &amp; some" in panel
    assert document.count('class="node picked"') == 1
    near = nx.ancestors(graph, feature) | nx.descendants(graph, feature) | {feature}
    far = [node for node in shown.values() if node not in near]
    assert len(re.findall(r'class="node faded"', document)) == len(far) > 0


@pytest.fixture(scope="module")
def small_graph(mixed: LocalReplacementModel) -> nx.DiGraph:
    graph = circuit_of(mixed, some_targets(mixed)[0], Search(8, 3, sign="both")).graph
    return prune_graph(graph, 0.9)


def test_drawing_twice_gives_the_same_bytes_and_is_silent(
    small_graph: nx.DiGraph, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    draw_graph(small_graph, TOKENS, tmp_path / "one")
    time.sleep(1.1)  # a PDF would hold the time, in seconds
    draw_graph(small_graph, TOKENS, tmp_path / "two")
    for suffix in (".png", ".pdf"):
        one, two = ((tmp_path / name).with_suffix(suffix).read_bytes() for name in ("one", "two"))
        assert one == two
    assert capfd.readouterr() == ("", "")  # what the font library remarks on goes nowhere
    os.write(2, b"heard again")
    assert capfd.readouterr().err == "heard again"


def test_the_picture_has_every_node_in_its_row_and_every_edge(
    small_graph: nx.DiGraph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = []
    layout = pygraphviz.AGraph.layout

    def watched(picture: pygraphviz.AGraph, program: str) -> None:
        pictures.append(picture)
        layout(picture, program)

    monkeypatch.setattr(pygraphviz.AGraph, "layout", watched)
    draw_graph(small_graph, TOKENS, tmp_path / "circuit")
    (picture,) = pictures
    shown, edges = parts_of(small_graph)
    assert {node for node in picture.nodes() if not node.startswith("row")} == set(shown)
    drawn = {edge: edge.attr for edge in picture.edges() if edge.attr["style"] != "invis"}
    assert set(drawn) == set(edges)
    for edge, attributes in drawn.items():
        look = (POSITIVE, "solid") if edges[edge] > 0 else (NEGATIVE, "dashed")
        assert (attributes["color"], attributes["style"]) == look
    widest = max(drawn, key=lambda edge: float(drawn[edge]["penwidth"]))
    assert abs(edges[widest]) == max(map(abs, edges.values()))
    heights = {
        (node.row, picture.get_node(key).attr["pos"].split(",")[1]) for key, node in shown.items()
    }
    assert len(heights) == len({node.row for node in shown.values()})
