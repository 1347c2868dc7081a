"""A circuit opens in the viewers of circuit-tracer and Neuronpedia, and nothing is lost there."""

import gzip
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from helpers_browser import NEEDS_CHROMIUM
from helpers_circuits import write_files
from helpers_viewers import (
    NEEDS_NPM,
    click,
    complaints,
    drawn,
    make_frontend,
    python_packages,
    served,
    show,
    text_of,
)
from transcoders.circuits import Search
from transcoders.circuits.export import feature_number, load_circuit
from transcoders.circuits.graph import build_graph
from transcoders.circuits.notation import CONTRIBUTORS
from transcoders.files import read_json

pytestmark = pytest.mark.full
COMMITTED = Path(__file__).resolve().parents[2] / "results/overnight/circuits"
TARGETS = {
    "logit": "logit[w5]@-1", "difference": "logit[w5]-logit[w9]@-1", "feature": "tc2[top]@-1",
}  # fmt: skip
"""Of a prompt of five tokens."""
CASES = [*TARGETS, *sorted(path.parent.name for path in COMMITTED.glob("*/paths.json"))]


@pytest.fixture(scope="module", autouse=True)
def packages():
    """What others wrote can be imported here and nowhere else."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(python_packages())
        yield
    theirs = ("circuit_tracer", "neuronpedia")
    for name in [name for name in sys.modules if name.partition(".")[0] in theirs]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def made(tracer, random_tokens, tmp_path_factory):
    """Circuits of a prompt of five tokens, of all kinds of parts."""
    folder = tmp_path_factory.mktemp("circuits")
    rows = random_tokens(10, 12, seed=8).long()
    for name, target in TARGETS.items():
        found = tracer.trace("w1 w2 w3 w4", target, Search(40, 4, CONTRIBUTORS, sign="both"))
        assert len(found.tokens) == 5
        write_files(tracer, found, rows, folder / name)
    return folder


@pytest.fixture(params=CASES)
def folder(request, made):
    return (made if request.param in TARGETS else COMMITTED) / request.param


@pytest.fixture(scope="module")
def frontend(tmp_path_factory):
    folder = tmp_path_factory.mktemp("viewer") / "frontend"
    make_frontend(folder)
    return folder


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


def test_nodes_are_those_that_circuit_tracer_would_make(folder):
    from circuit_tracer.frontend.graph_models import Node as Theirs

    record, paths = load_circuit(folder)
    ours = nodes_of(folder)
    logits = record["target"]["logits"]
    single = len(logits) == 1
    for node, data in build_graph(paths).nodes(data=True):
        common, excepted = {"pos": node.token}, {"clerp", "influence"}
        if node.kind == "feature":
            activation = data["activation"]
            common |= {"layer": node.layer, "feat_idx": node.unit, "activation": activation}
            made = Theirs.feature_node(**common)
        elif node.kind == "embed":
            made = Theirs.token_node(**common, vocab_idx=record["token_ids"][node.token])
        elif node.kind in ("mlp", "error") and node.layer >= 0:
            made, excepted = Theirs.error_node(node.layer, **common), excepted | {"node_id"}
            made.node_id = f"{node.layer}_-1_{node.token}"  # theirs may be that of a feature, too
        elif node.kind == "target":
            made = Theirs.logit_node(
                node.token,
                vocab_idx=logits[0]["token_id"] if single else record["d_vocab"],
                token=logits[0]["token"] if single else record["target"]["name"],
                num_layers=record["n_layers"],
                target_logit=True,
                token_prob=sum(each["weight"] * each["probability"] for each in logits),
            )
            excepted = {"influence"}
        else:
            continue
        found = Theirs(**ours[made.node_id])
        assert found.model_dump(exclude=excepted) == made.model_dump(exclude=excepted)


def test_influence_is_that_of_circuit_tracer(folder):
    from circuit_tracer.graph import compute_node_influence

    record, nodes = read_json(folder / "graph.json"), nodes_of(folder)
    place = {name: number for number, name in enumerate(nodes)}
    edges = torch.zeros(len(nodes), len(nodes), dtype=torch.float64)
    for link in record["links"]:
        edges[place[link["target"]], place[link["source"]]] = link["weight"]
    is_target = torch.tensor([node["is_target_logit"] for node in nodes.values()])
    assert is_target.sum() == 1
    theirs = compute_node_influence(edges, is_target.double())
    cumulative = theirs.sort(descending=True).values.cumsum(0) / theirs.sum()
    others = [name for name, node in nodes.items() if not node["is_target_logit"]]
    others.sort(key=lambda name: nodes[name]["influence"])
    found = torch.tensor([nodes[name]["influence"] for name in others], dtype=torch.float64)
    torch.testing.assert_close(found, cumulative[: len(found)])
    strengths = theirs[[place[name] for name in others]]
    assert (strengths.diff() <= 1e-9).all()


@pytest.mark.parametrize("name", TARGETS)
def test_feature_files_are_those_of_circuit_tracer(made, name):
    from circuit_tracer.frontend.feature_models import Model

    features = {
        feature_number(node.layer, node.unit): node
        for node in build_graph(load_circuit(made / name)[1])
        if node.kind == "feature"
    }
    files = {int(path.stem): path for path in (made / name / "features").glob("*.json")}
    assert set(files) == set(features) and len(files) > 1
    for number, path in files.items():
        panel = Model.model_validate(read_json(path), strict=True)
        assert panel.index == features[number].unit
        (quantile,) = panel.examples_quantiles
        peaks = [each.tokens_acts_list[each.train_token_ind] for each in quantile.examples]
        assert peaks == sorted(peaks, reverse=True)
        assert max(peaks, default=0) == pytest.approx(panel.act_max, rel=0.01)
        assert 0 <= panel.activation_frequency <= 1 and bool(peaks) == bool(panel.quantile_values)


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

        chosen = next(
            node for node in nodes.values()
            if node["feature_type"] == "cross layer transcoder" and examples_of(folder, node)
        )  # fmt: skip
        name = chosen["node_id"]
        click(browser, places[name]["x"], places[name]["y"])
        browser.wait(lambda: browser.run(f"{text_of('.feature-example-list')}.length > 0"))
        layer, unit, _ = name.split("_")
        title = browser.run(text_of(".feature-detail .feature-title"))
        assert f"L{layer}/{unit}" in title and f"Act: {chosen['activation']:.2f}" in title
        assert browser.run(text_of(".feature-detail .pp-clerp")) == chosen["clerp"]
        shown = browser.run(text_of(".feature-example-list")).split()
        expected = "".join(examples_of(folder, chosen)[0]["tokens"]).split()
        assert set(expected) <= set(shown)
        assert complaints(browser) == []


def test_neuronpedias_client_takes_a_graph(folder, monkeypatch):
    from neuronpedia.requests import graph_request

    sent = []
    answers = {"signed-put": {"url": "there", "putRequestId": "1"}, "save-to-db": {"url": "here"}}

    def put(_, *, data, **__):
        sent.append(gzip.decompress(data))
        return SimpleNamespace(status_code=200)

    monkeypatch.setattr(graph_request.requests, "put", put)
    monkeypatch.setattr(
        graph_request.GraphRequest, "send_request", lambda _, *, uri, **__: answers[uri]
    )
    monkeypatch.setattr(graph_request.GraphRequest, "get", lambda _, *names: names)
    path = folder / "graph.json"
    named = graph_request.GraphRequest(api_key="none").upload_file(str(path))
    metadata = read_json(path)["metadata"]
    assert named == (metadata["scan"], metadata["slug"])
    assert sent == [path.read_bytes()]


def examples_of(folder, node):
    """The examples of a feature's node."""
    panel = read_json(folder / f"features/{node['feature']}.json")
    return panel["examples_quantiles"][0]["examples"]
