"""What is written of a circuit can be read back, here and by the viewers."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import networkx as nx
import pytest

from helpers_circuits import some_targets
from transcoders.circuits.export import (
    FEATURE_TYPES,
    attribution_graph,
    load_circuit,
    paths_of_record,
    paths_record,
)
from transcoders.circuits.graph import build_graph, influence
from transcoders.circuits.notation import CONTRIBUTORS
from transcoders.circuits.paths import ComputationalPath, Search, find_paths
from transcoders.circuits.replacement import LocalReplacementModel
from transcoders.errors import UserError
from transcoders.files import write_json

TOKENS = ["<|endoftext|>", *(f" w{i}" for i in range(7))]
SCHEMA = json.loads(Path(__file__).with_name("attribution_graph.schema.json").read_text())
IDS = list(range(40, 48))


@pytest.fixture(scope="module", params=["logits", "feature"])
def paths(request: pytest.FixtureRequest, mixed: LocalReplacementModel) -> list[ComputationalPath]:
    target = some_targets(mixed)[0 if request.param == "logits" else -1]
    return find_paths(mixed, target, Search(30, 4, sign="both"))


@pytest.fixture(scope="module")
def graph(paths: list[ComputationalPath]) -> nx.DiGraph:
    return build_graph(paths)


def exported(graph: nx.DiGraph, **settings: Any) -> dict[str, Any]:
    """The viewers' graph."""
    defaults: dict[str, Any] = {
        "slug": "a-circuit.1",
        "model": "tiny",
        "prompt": "w0 w1",
        "tokens": TOKENS,
        "token_ids": IDS,
        "labels": {},
    }
    return attribution_graph(graph, **{**defaults, **settings})


def fields(path: ComputationalPath) -> dict[str, Any]:
    """All of a path but its relatives."""
    return {k: v for k, v in vars(path).items() if k not in ("parent", "children")}


def test_paths_come_back_as_they_were(paths: list[ComputationalPath]) -> None:
    back = paths_of_record(json.loads(json.dumps(paths_record(paths))))
    assert [fields(path) for path in back] == [fields(path) for path in paths]
    place = {id(path): i for i, path in enumerate(paths)}
    place_back = {id(path): i for i, path in enumerate(back)}
    for path, again in zip(paths, back, strict=True):
        assert (again.parent and place_back[id(again.parent)]) == (
            path.parent and place[id(path.parent)]
        )
        assert [place_back[id(child)] for child in again.children] == [
            place[id(child)] for child in path.children
        ]


def without(name: str) -> Any:
    def damage(record: dict[str, Any]) -> Any:
        del record["paths"][1][name]
        return record

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: [],
        lambda _: {},
        lambda _: {"paths": 3},
        lambda _: {"paths": {"node": "tc1[2]@3"}},
        lambda record: {"paths": record["paths"][1:]},  # what others extend is missing
        without("attribution"),
        without("kind"),
        without("parent"),
    ],
)
def test_a_file_that_is_no_circuit_is_named(
    paths: list[ComputationalPath], tmp_path: Path, damage: Any
) -> None:
    write_json(tmp_path / "paths.json", damage({"paths": paths_record(paths[:8])[:2]}))
    with pytest.raises(UserError, match=r"paths\.json: expected the record of a circuit"):
        load_circuit(tmp_path)


def test_the_viewers_graph_has_every_node_and_edge_once(graph: nx.DiGraph) -> None:
    record = exported(graph)
    jsonschema.validate(record, SCHEMA)
    ids = [node["node_id"] for node in record["nodes"]]
    assert len(ids) == len(set(ids)) == graph.number_of_nodes()
    ends = {(link["source"], link["target"]) for link in record["links"]}
    assert len(ends) == graph.number_of_edges()
    assert {end for both in ends for end in both} == set(ids)
    weights = sorted(link["weight"] for link in record["links"])
    assert weights == sorted(w for *_, w in graph.edges(data="path_attribution"))


def test_the_viewers_nodes_say_what_ours_are(graph: nx.DiGraph) -> None:
    shares = influence(graph)
    for shown, (node, data) in zip(exported(graph)["nodes"], graph.nodes(data=True), strict=True):
        assert shown["feature"] == (node.unit if node.kind == "feature" else None)
        assert shown["ctx_idx"] == node.token
        assert shown["feature_type"] == FEATURE_TYPES.get(node.kind, "mlp reconstruction error")
        assert shown["clerp"] == str(node)
        assert shown["influence"] == shares[node]
        assert shown["activation"] == data.get("activation")
        assert shown["is_target_logit"] == (node.kind == "target")
        if node.kind in ("feature", "head", "mlp"):
            assert shown["layer"] == str(node.layer)
        if node.kind == "embed":
            assert shown["layer"] == "E"
            assert shown["node_id"] == f"E_{IDS[node.token]}_{node.token}"


def test_ids_are_unique_where_errors_are_parts_and_remainders(mixed: LocalReplacementModel) -> None:
    for target in some_targets(mixed):
        graph = build_graph(find_paths(mixed, target, Search(40, 3, CONTRIBUTORS, sign="both")))
        nodes = exported(graph)["nodes"]
        assert len({node["node_id"] for node in nodes}) == len(nodes) == len(graph)
