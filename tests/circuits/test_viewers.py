"""A circuit opens in the viewers of circuit-tracer and Neuronpedia, and nothing is lost there."""

import gzip
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from helpers_browser import NEEDS_CHROMIUM
from helpers_circuits import TARGETS
from helpers_viewers import (
    NEEDS_NPM,
    click,
    complaints,
    drawn,
    make_frontend,
    python_packages,
    served,
    show,
)
from transcoders.circuits.export import feature_number
from transcoders.files import read_json

pytestmark = pytest.mark.full
COMMITTED = Path(__file__).resolve().parents[2] / "results/overnight/circuits"
CASES = [*TARGETS, *sorted(path.parent.name for path in COMMITTED.glob("*/paths.json"))]


@pytest.fixture(scope="module", autouse=True)
def packages():
    """What others wrote can be imported here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(python_packages())
        yield


@pytest.fixture(params=CASES)
def folder(request, circuits):
    return circuits[request.param][1] if request.param in TARGETS else COMMITTED / request.param


@pytest.fixture(scope="module")
def frontend(tmp_path_factory):
    return make_frontend(tmp_path_factory.mktemp("viewer") / "frontend")


def nodes_of(folder):
    return {node["node_id"]: node for node in read_json(folder / "graph.json")["nodes"]}


def test_a_graph_is_one_of_circuit_tracer(folder):
    from circuit_tracer.frontend.graph_models import Metadata, Model

    record = read_json(folder / "graph.json")
    model = Model.model_validate(record, strict=True)
    assert len({node.node_id for node in model.nodes}) == len(model.nodes)
    # The viewer takes nodes that share these for one: it would draw only some of them, or none.
    assert len({(n.layer, n.feature, n.ctx_idx) for n in model.nodes}) == len(model.nodes)
    (listed,) = read_json(folder / "graph-metadata.json")["graphs"]
    assert Metadata(**listed) == model.metadata.model_copy(update={"slug": "graph"})


def test_influence_is_that_of_circuit_tracer(folder):
    from circuit_tracer.graph import compute_node_influence

    record, nodes = read_json(folder / "graph.json"), nodes_of(folder)
    place = {name: number for number, name in enumerate(nodes)}
    edges = torch.zeros(len(nodes), len(nodes), dtype=torch.float64)
    for link in record["links"]:
        edges[place[link["target"]], place[link["source"]]] = link["weight"]
    is_target = torch.tensor([node["is_target_logit"] for node in nodes.values()])
    theirs = compute_node_influence(edges, is_target.double())
    cumulative = theirs.sort(descending=True).values.cumsum(0) / theirs.sum()
    others = [name for name, node in nodes.items() if not node["is_target_logit"]]
    others.sort(key=lambda name: nodes[name]["influence"])
    found = torch.tensor([nodes[name]["influence"] for name in others], dtype=torch.float64)
    torch.testing.assert_close(found, cumulative[: len(found)])
    strengths = theirs[[place[name] for name in others]]
    assert (strengths.diff() <= 1e-9).all()


def test_feature_files_are_those_of_circuit_tracer(written):
    from circuit_tracer.frontend.feature_models import Model

    circuit, folder = written
    features = {node for node in circuit.graph if node.kind == "feature"}
    units = {feature_number(node.layer, node.unit): node.unit for node in features}
    for path in (folder / "features").glob("*.json"):
        panel = Model.model_validate(read_json(path), strict=True)
        assert panel.index == units[int(path.stem)]


@NEEDS_CHROMIUM
@NEEDS_NPM
def test_circuit_tracers_viewer_draws_all_and_a_click_shows_a_node(folder, browser, frontend):
    nodes = nodes_of(folder)
    with served(folder, frontend) as url:
        show(browser, url)
        places = {node["id"]: node for node in drawn(browser)}
        assert set(places) == set(nodes)
        assert len({(node["x"], node["y"]) for node in places.values()}) == len(nodes)
        for name, node in nodes.items():
            if node["feature_type"] != "embedding":  # these get a text of the viewer's own
                assert places[name]["name"] == node["clerp"]
        fetched = browser.run("performance.getEntriesByType('resource').map((each) => each.name)")
        assert all(name.startswith(url.removesuffix("index.html")) for name in fetched)

        features = (n for n in nodes.values() if n["feature_type"] == "cross layer transcoder")
        chosen = next(node for node in features if examples_of(folder, node))
        name, example = chosen["node_id"], examples_of(folder, chosen)[0]
        click(browser, places[name]["x"], places[name]["y"])
        text = "(document.querySelector('{}')?.innerText ?? '')"  # empty where there is none yet
        examples = text.format(".feature-example-list")
        browser.wait(lambda: browser.run(f"{examples}.length > 0"))
        layer, unit, _ = name.split("_")
        title = browser.run(text.format(".feature-detail .feature-title"))
        assert f"L{layer}/{unit}" in title and f"Act: {chosen['activation']:.2f}" in title
        assert browser.run(text.format(".feature-detail .pp-clerp")) == chosen["clerp"]
        assert set("".join(example["tokens"]).split()) <= set(browser.run(examples).split())
        assert complaints(browser) == []


def test_neuronpedias_client_takes_a_graph(folder, monkeypatch):
    from neuronpedia.requests import graph_request

    sent = []
    answers = {"signed-put": {"url": "there", "putRequestId": "1"}, "save-to-db": {"url": "here"}}

    def put(_, *, data, **__):
        sent.append(gzip.decompress(data))
        return SimpleNamespace(status_code=200)

    client, path = graph_request.GraphRequest, folder / "graph.json"
    monkeypatch.setattr(graph_request.requests, "put", put)
    monkeypatch.setattr(client, "send_request", lambda _, *, uri, **__: answers[uri])
    monkeypatch.setattr(client, "get", lambda _, *names: names)
    named = client(api_key="none").upload_file(str(path))
    metadata = read_json(path)["metadata"]
    assert named == (metadata["scan"], metadata["slug"])
    assert sent == [path.read_bytes()]


def examples_of(folder, node):
    """The examples of a feature's node."""
    panel = read_json(folder / f"features/{node['feature']}.json")
    return panel["examples_quantiles"][0]["examples"]
