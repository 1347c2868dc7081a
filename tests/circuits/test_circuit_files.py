"""A circuit's record, viewers' graph, page and picture hold what its graph holds."""

import json
import math
import time
from pathlib import Path

import jsonschema
import networkx as nx
import pytest
from PIL import Image

from helpers_circuits import PROMPT
from transcoders.circuits import drawing
from transcoders.circuits.drawing import NEGATIVE, PAGE_WIDTH, POSITIVE, draw_brief, draw_graph
from transcoders.circuits.export import (
    FEATURE_TYPES,
    attribution_graph,
    feature_number,
    load_circuit,
)
from transcoders.circuits.graph import build_graph, prune_graph
from transcoders.circuits.labels import Label
from transcoders.circuits.notation import REMAINDERS
from transcoders.files import read_json

TOKENS = ["<b>", '"', "\n{a|b}", "&", "\\é"]
SCHEMA = json.loads(Path(__file__).with_name("attribution_graph.schema.json").read_text())


def test_the_record_holds_the_question_and_the_whole_graph(written):
    circuit, folder = written
    record, paths = load_circuit(folder)
    assert nx.utils.graphs_equal(build_graph(paths), circuit.graph)
    assert (record["name"], record["model"]) == (folder.name, "tiny-gpt2")
    assert (record["prompt"], record["tokens"]) == (PROMPT, ["<|endoftext|>", *PROMPT.split()])
    assert record["completeness_error"] < 1e-5 and -1 <= record["rank_correlation"] <= 1
    target, value = record["target"], circuit.target.value
    weights = {"logit": {"w5": 1}, "difference": {"w5": 1, "w9": -1}, "feature": {}}[folder.name]
    assert {each["token"]: each["weight"] for each in target["logits"]} == weights
    assert target["value"] == value
    assert target["prefers_first"] is (value > 0 if len(weights) == 2 else None)
    features = {node for node in circuit.graph if node.kind == "feature"}
    assert set(record["notes"]) == {node.name for node in features}
    files = {path.name for path in (folder / "features").iterdir()}
    assert files == {f"{feature_number(node.layer, node.unit)}.json" for node in features}


def test_the_viewers_graph_has_every_node_and_edge_once(written):
    (circuit, folder), graph = written, written[0].graph
    record = read_json(folder / "graph.json")
    jsonschema.validate(record, SCHEMA)
    ids = [node["node_id"] for node in record["nodes"]]
    more = circuit.target.node.kind == "feature"  # it gets an output
    assert len(ids) == len(set(ids)) == graph.number_of_nodes() + more
    ends = {(link["source"], link["target"]) for link in record["links"]}
    assert len(ends) == graph.number_of_edges() + more
    assert {end for both in ends for end in both} == set(ids)
    weights = sorted(link["weight"] for link in record["links"])
    expected = [weight for *_, weight in graph.edges(data="path_attribution")]
    assert weights == sorted(expected + [circuit.target.value] * more)
    assert min(weights) < 0


def test_the_viewers_nodes_say_what_ours_are(written):
    circuit, folder = written
    graph, (record, _) = circuit.graph, load_circuit(folder)
    shown = attribution_graph(graph, record, labels_for(graph))["nodes"]
    for view, (node, data) in zip(shown, graph.nodes(data=True), strict=False):
        assert (view["ctx_idx"], view["feature_type"]) == (node.token, FEATURE_TYPES[node.kind])
        if node.kind == "feature":
            assert view["node_id"] == f"{node.layer}_{node.unit}_{node.token}"
            assert view["activation"] == data["activation"]
            name = "one of" if node.unit % 2 else f"“{node.unit}”"
            assert view["clerp"] == f"{node}: {name}"
        elif node.kind != "target":
            assert (view["activation"], view["clerp"]) == (None, str(node))
    (output,) = (view for view in shown if view["is_target_logit"])
    name = "w5" if folder.name == "logit" else circuit.target.name
    assert output["clerp"].startswith(f'Output "{name}" (p=')


def labels_for(graph):
    """A good name for every feature of even number, a bad one for all others."""
    features = [node for node in graph if node.kind == "feature"]
    scores = {node: 0.6 if node.unit % 2 else 0.9 for node in features}
    return {n.name: Label(f"“{n.unit}”", scores[n], "", ("one of", "two of")) for n in features}


@pytest.mark.parametrize(("layer", "unit"), [(0, 7), (30, 24575)])
def test_the_number_of_a_feature_tells_its_layer_and_index(layer, unit):
    diagonal = (math.isqrt(8 * feature_number(layer, unit) + 1) - 1) // 2
    index = feature_number(layer, unit) - diagonal * (diagonal + 1) // 2
    assert (diagonal - index, index) == (layer, unit)


@pytest.fixture
def graph(circuits):
    """A small one."""
    return prune_graph(circuits["difference"][0].graph, 0.4)


def test_drawing_twice_gives_the_same_bytes_and_is_silent(graph, tmp_path, capfd):
    draw_graph(graph, TOKENS, tmp_path / "one")
    time.sleep(1.1)  # a PDF would hold the time, in seconds
    draw_graph(graph, TOKENS, tmp_path / "two")
    for suffix in ("png", "pdf"):
        one, two = (path.read_bytes() for path in tmp_path.glob(f"*.{suffix}"))
        assert one == two
    assert capfd.readouterr() == ("", "")  # what the font library remarks on goes nowhere


def test_a_brief_picture_has_the_most_influential_nodes_that_fit_into_a_page(circuits, tmp_path):
    graph = circuits["difference"][0].graph
    whole, brief = tmp_path / "whole.png", tmp_path / "brief.png"
    draw_graph(graph, TOKENS, whole)
    draw_brief(graph, TOKENS, brief)
    with Image.open(whole) as all_of_it, Image.open(brief) as part:
        assert part.width <= 150 * PAGE_WIDTH + 10 < all_of_it.width  # a margin of some pixels


def test_the_picture_has_every_node_in_its_row_and_every_edge(graph, tmp_path, monkeypatch):
    pictures = []
    monkeypatch.setattr(drawing, "_write", lambda picture, _: pictures.append(picture))
    draw_graph(graph, TOKENS, tmp_path / "circuit", labels=labels_for(graph))
    (picture,) = pictures
    shown = {node.key: node for node in graph if node.kind not in REMAINDERS}
    flows = graph.edges(data="path_attribution")
    edges = {(start.key, end.key): weight for start, end, weight in flows if start.key in shown}
    for key, node in shown.items():
        if node.kind == "feature":
            written = " ".join(picture.get_node(key).attr["label"].split())
            good = f"“{node.unit}” (0.90)"
            assert (good if node.unit % 2 == 0 else "as in “one of” (0.60)") in written
    assert {node for node in picture.nodes() if not node.startswith("row")} == set(shown)
    drawn = {edge: edge.attr for edge in picture.edges() if edge.attr["style"] != "invis"}
    assert set(drawn) == set(edges)
    for edge, attributes in drawn.items():
        look = (POSITIVE, "solid") if edges[edge] > 0 else (NEGATIVE, "dashed")
        assert (attributes["color"], attributes["style"]) == look
    widest = max(drawn, key=lambda edge: float(drawn[edge]["penwidth"]))
    assert abs(edges[widest]) == max(map(abs, edges.values()))
    heights = {key: picture.get_node(key).attr["pos"].split(",")[1] for key in shown}
    rows = {(node.row, heights[key]) for key, node in shown.items()}
    assert len(rows) == len({row for row, _ in rows})
