"""A circuit's record, viewers' graph, page and picture hold what its graph holds."""

import json
import math
import os
import time
from pathlib import Path

import jsonschema
import pygraphviz
import pytest
from PIL import Image

from helpers_circuits import some_targets
from transcoders.circuits import drawing
from transcoders.circuits.drawing import NEGATIVE, PAGE_WIDTH, POSITIVE, draw_brief, draw_graph
from transcoders.circuits.export import (
    FEATURE_TYPES,
    attribution_graph,
    feature_number,
)
from transcoders.circuits.graph import build_graph, prune_graph
from transcoders.circuits.labels import Label, feature_name
from transcoders.circuits.notation import REMAINDERS
from transcoders.circuits.paths import Search, find_paths
from transcoders.circuits.trace import Circuit

TOKENS = ["<|endoftext|>", "<b>", '"', "\n", "{a|b}", "&", "\\", "é"]
SCHEMA = json.loads(Path(__file__).with_name("attribution_graph.schema.json").read_text())


def circuit_of(local, target, search):
    paths = find_paths(local, target, search)
    return Circuit("w0 w1", search, local, target, TOKENS, paths, build_graph(paths))


@pytest.fixture(scope="module", params=[0, 1, -1], ids=["logit", "difference", "feature"])
def circuit(request, mixed):
    target = some_targets(mixed)[request.param]
    return circuit_of(mixed, target, Search(30, 4, sign="both"))


def exported(circuit, labels=None):
    local, target = circuit.local, circuit.target
    record = {
        "name": "a circuit.1", "model": "tiny", "prompt": circuit.prompt, "tokens": circuit.tokens,
        "token_ids": local.passed.tokens.tolist(), "d_vocab": local.replacement.model.cfg.d_vocab,
        "n_layers": local.replacement.n_layers, "notes": {},
        "transcoders": list(local.replacement.transcoders),
        "target": {
            "name": target.name, "logits": [
                {"token": str(token), "token_id": token, "weight": weight, "probability": 0.25}
                for token, weight in target.logits.items()
            ],
        },
    }  # fmt: skip
    return attribution_graph(circuit.graph, record, labels or {})


def test_the_viewers_graph_has_every_node_and_edge_once(circuit):
    record, graph = exported(circuit), circuit.graph
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


def test_the_viewers_nodes_say_what_ours_are(circuit):
    ids = circuit.local.passed.tokens.tolist()
    d_vocab = circuit.local.replacement.model.cfg.d_vocab
    nodes = circuit.graph.nodes(data=True)
    labelled = exported(circuit, labels_for(circuit.graph))["nodes"]
    for shown, (node, data) in zip(labelled, nodes, strict=False):
        assert shown["ctx_idx"] == node.token
        assert shown["feature_type"] == FEATURE_TYPES[node.kind]
        assert shown["is_target_logit"] == (node.kind == "target")
        is_feature = node.kind == "feature"
        assert shown["activation"] == (data["activation"] if is_feature else None)
        if node.kind in ("feature", "head", "mlp"):
            assert shown["layer"] == str(node.layer)
        if node.kind == "embed":
            assert shown["node_id"] == f"E_{ids[node.token]}_{node.token}"
        if is_feature:
            assert shown["node_id"] == f"{node.layer}_{node.unit}_{node.token}"
            name = "one of" if node.unit % 2 else f"“{node.unit}”"
            assert shown["clerp"] == f"{node}: {name}"
        elif node.kind == "target":
            is_one_logit = len(circuit.target.logits) == 1
            name, p = ("7", 0.25) if is_one_logit else (circuit.target.name, 0)
            assert shown["clerp"] == f'Output "{name}" (p={p:.3f})'
            assert shown["feature"] == (7 if is_one_logit else d_vocab)
        else:
            assert shown["clerp"] == str(node)
    if circuit.target.node.kind == "feature":
        (output,) = labelled[len(nodes) :]
        assert output["is_target_logit"] and output["clerp"].endswith("(p=1.000)")


def labels_for(graph):
    """A good name for every feature of even number, a bad one for all others."""
    return {
        feature_name(node.layer, node.unit): Label(
            f"“{node.unit}”", 0.9 if node.unit % 2 == 0 else 0.6, "", ("one of", "two of")
        )
        for node in graph
        if node.kind == "feature"
    }


@pytest.mark.parametrize(("layer", "unit"), [(0, 7), (30, 24575)])
def test_the_number_of_a_feature_tells_its_layer_and_index(layer, unit):
    diagonal = (math.isqrt(8 * feature_number(layer, unit) + 1) - 1) // 2
    index = feature_number(layer, unit) - diagonal * (diagonal + 1) // 2
    assert (diagonal - index, index) == (layer, unit)


@pytest.fixture(scope="module")
def small_graph(mixed):
    graph = circuit_of(mixed, some_targets(mixed)[0], Search(8, 3, sign="both")).graph
    return prune_graph(graph, 0.9)


def test_drawing_twice_gives_the_same_bytes_and_is_silent(small_graph, tmp_path, capfd):
    draw_graph(small_graph, TOKENS, tmp_path / "one")
    time.sleep(1.1)  # a PDF would hold the time, in seconds
    draw_graph(small_graph, TOKENS, tmp_path / "two")
    for suffix in (".png", ".pdf"):
        one, two = ((tmp_path / name).with_suffix(suffix).read_bytes() for name in ("one", "two"))
        assert one == two
    assert capfd.readouterr() == ("", "")  # what the font library remarks on goes nowhere
    os.write(2, b"heard again")
    assert capfd.readouterr().err == "heard again"


def test_a_brief_picture_has_the_most_influential_nodes_that_fit_into_a_page(
    mixed, tmp_path, monkeypatch
):
    graph = circuit_of(mixed, some_targets(mixed)[0], Search(40, 3, sign="both")).graph
    whole, brief = tmp_path / "whole.png", tmp_path / "brief.png"
    draw_graph(graph, TOKENS, whole)
    draw_brief(graph, TOKENS, brief)
    with Image.open(whole) as all_of_it, Image.open(brief) as part:
        assert part.width <= 150 * PAGE_WIDTH + 10 < all_of_it.width  # a margin of some pixels
    monkeypatch.setattr(drawing, "PAGE_WIDTH", 100)
    draw_brief(graph, TOKENS, brief)
    with Image.open(whole) as all_of_it, Image.open(brief) as part:
        assert 150 * PAGE_WIDTH < part.width <= all_of_it.width


def test_the_picture_has_every_node_in_its_row_and_every_edge(small_graph, tmp_path, monkeypatch):
    pictures = []
    layout = pygraphviz.AGraph.layout

    def watched(picture, program):
        pictures.append(picture)
        layout(picture, program)

    monkeypatch.setattr(pygraphviz.AGraph, "layout", watched)
    draw_graph(small_graph, TOKENS, tmp_path / "circuit", labels=labels_for(small_graph))
    (picture,) = pictures
    shown = {node.key: node for node in small_graph if node.kind not in REMAINDERS}
    edges = {
        (start.key, end.key): weight
        for start, end, weight in small_graph.edges(data="path_attribution")
        if start.key in shown
    }
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
    heights = {
        (node.row, picture.get_node(key).attr["pos"].split(",")[1]) for key, node in shown.items()
    }
    assert len(heights) == len({node.row for node in shown.values()})
