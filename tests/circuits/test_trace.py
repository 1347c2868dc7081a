"""A tracer turns texts into circuits, and a circuit into files."""

import json

import networkx as nx
import pytest
import torch

from helpers_circuits import active_units, make_circuit, write_files
from transcoders.circuits import Search, Tracer
from transcoders.circuits.export import feature_number, load_circuit
from transcoders.circuits.features import look_at_features
from transcoders.circuits.graph import build_graph
from transcoders.circuits.invariant import de_embeddings, direct_logits
from transcoders.circuits.notation import Node
from transcoders.circuits.replacement import ReplacementModel
from transcoders.models import mlp_activations

PROMPT = "w1 w2 w3 w4 w5 w6"
TOKENS = ["<|endoftext|>", "w1", "w2", "w3", "w4", "w5", "w6"]


@pytest.fixture(scope="module")
def rows(random_tokens):
    return random_tokens(10, 12, seed=8).long()


@pytest.mark.parametrize("token", [-1, 3])
def test_the_top_feature_is_the_most_active_one(tracer, token):
    local = tracer.freeze(PROMPT)
    position = token % local.n_tokens
    best = active_units(local, 2, position)[0]
    target = tracer.target(local, f"tc2[top]@{token}")
    assert target.node == Node("feature", 2, best, position)
    assert target.value == tracer.target(local, f"tc2[{best}]@{position}").value


def z_on(tracer, rows, layer, unit):
    """How active a feature is on the rows, after BOS."""
    mlp_in = mlp_activations(tracer.replacement.model, rows, [layer])[layer].mlp_in
    return tracer.replacement.transcoders[layer].encode(mlp_in)[:, 1:, unit]


def test_lists_say_where_a_feature_is_active_and_what_it_reads_and_writes(tracer, rows):
    nodes = [
        Node("feature", 2, 5, 3), Node("feature", 2, 5, 4), Node("feature", 0, 9, 3),
        Node("head", 1, 0, 3, 2), Node("target", 3, -1, 3),
    ]  # fmt: skip
    known = look_at_features(tracer, nodes, rows)
    assert list(known) == ["tc0[9]", "tc2[5]"]
    for layer, unit, lists, _ in known.values():
        (_, examples), (_, drivers), (_, raised) = lists
        one = torch.tensor([unit])
        reads = tracer.replacement.encoder_vectors(layer, one)
        writes = tracer.replacement.transcoders[layer].W_dec[one]
        for shown, best in (
            (drivers, de_embeddings(tracer.replacement, reads, 6)),
            (raised, direct_logits(tracer.replacement, writes, 6)),
        ):
            assert [word for word, _ in shown] == tracer.tokenizer.batch_decode(best.indices.T)
        z = z_on(tracer, rows, layer, unit)
        strongest = z.flatten().topk(6).values.tolist()
        assert [value for _, value in examples] == [f"{value:.2f}" for value in strongest]
        row, position = divmod(int(z.argmax()), 11)
        text = tracer.tokenizer.decode(rows[row, max(position - 4, 1) : position + 2])
        assert examples[0][0] == text


def test_a_feature_that_never_fires_has_no_examples(random_dictionary, tracer, rows):
    dictionary = random_dictionary("transcoder")
    dictionary.b_enc[5] = -1e6
    circuit = ReplacementModel(tracer.replacement.model, {0: dictionary}, first_position=1)
    other = Tracer(circuit, tracer.tokenizer, 0)
    (known,) = look_at_features(other, [Node("feature", 0, 5, 3)], rows).values()
    assert known.lists[0][1] == known.panel["examples_quantiles"][0]["examples"] == []
    assert len(known.lists[1][1]) == 6


def test_a_features_file_holds_its_activations_around_its_peaks(tracer, rows):
    panel = look_at_features(tracer, [Node("feature", 2, 5, 3)], rows)["tc2[5]"].panel
    z = z_on(tracer, rows, 2, 5)
    peaks = z.max(dim=1)
    best = peaks.values.topk(6).indices.tolist()
    (quantile,) = panel["examples_quantiles"]
    for row, example in zip(best, quantile["examples"], strict=True):
        start = max(int(peaks.indices[row]) - 12, 0)
        end = start + len(example["tokens"])
        assert example["train_token_ind"] == int(peaks.indices[row]) - start
        assert example["tokens"] == [tracer.tokenizer.decode([i]) for i in rows[row, 1:][start:end]]
        assert example["tokens_acts_list"] == pytest.approx(z[row, start:end].tolist(), rel=0.01)
    assert sum(panel["histogram"]) == int((z > 0).sum())
    assert panel["quantile_values"][-1] == pytest.approx(panel["act_max"], rel=0.01)
    assert panel["activation_frequency"] == pytest.approx((z > 0).float().mean().item())
    writes = tracer.replacement.transcoders[2].W_dec[5]
    effects = tracer.replacement.centre(writes) @ tracer.replacement.model.W_U
    assert panel["top_logits"][0] == tracer.tokenizer.decode([int(effects.argmax())])
    assert panel["bottom_logits"][0] == tracer.tokenizer.decode([int(effects.argmin())])


@pytest.mark.parametrize(
    ("target", "weights"),
    [
        ("tc2[top]@-1", {}),
        ("logit[w5]-logit[w9]@-1", {"w5": 1, "w9": -1}),
        ("logit[w5]+logit[w9]@-1", {"w5": 1, "w9": 1}),
    ],
)
def test_a_circuit_is_written_and_then_its_page(tracer, rows, tmp_path, target, weights):
    circuit = tracer.trace(PROMPT, target, Search(15, 3, sign="both"))
    write_files(tracer, circuit, rows, tmp_path / "circuit")
    files = {path.name for path in (tmp_path / "circuit").iterdir()}
    assert files == {
        "paths.json", "graph.json", "graph-metadata.json", "features", "circuit.html",
        "ablation.csv", "faithfulness.csv", "controls.csv", "steering.csv", "errors.csv",
        "attention.csv",
    }  # fmt: skip
    page = (tmp_path / "circuit/circuit.html").read_text(encoding="utf-8")
    assert '<a href="../article.html">← The article</a>' in page
    record, paths = load_circuit(tmp_path / "circuit")
    assert nx.utils.graphs_equal(build_graph(paths), circuit.graph)
    assert (record["name"], record["model"], record["prompt"]) == ("circuit", "tiny-gpt2", PROMPT)
    assert record["tokens"] == TOKENS
    assert record["search"]["n_paths"] == 15
    assert record["target"]["value"] == circuit.target.value
    features = {node for node in circuit.graph if node.kind == "feature"}
    assert set(record["notes"]) == {node.name for node in features}
    files = {path.name for path in (tmp_path / "circuit/features").iterdir()}
    assert files == {f"{feature_number(node.layer, node.unit)}.json" for node in features}
    answers = {answer["token"]: answer["weight"] for answer in record["target"]["logits"]}
    assert answers == weights
    prefers_first = circuit.target.value > 0 if -1 in weights.values() else None
    assert record["target"]["prefers_first"] is prefers_first
    assert record["completeness_error"] < 1e-5
    assert -1 <= record["rank_correlation"] <= 1
    graph = json.loads((tmp_path / "circuit/graph.json").read_text())
    more = circuit.target.node.kind == "feature"  # which gets an output
    assert len(graph["nodes"]) == circuit.graph.number_of_nodes() + more


def test_a_circuit_of_a_model_without_transcoders_can_be_written(
    tracer, random_dictionary, rows, tmp_path
):
    model = tracer.replacement.model
    bare = Tracer(make_circuit(model, random_dictionary, {}, first=1), tracer.tokenizer, 0)
    circuit = bare.trace(PROMPT, "logit[w5]@-1", Search(8, 3))
    write_files(bare, circuit, rows, tmp_path / "c")
    record, _ = load_circuit(tmp_path / "c")
    assert (record["transcoders"], record["notes"]) == ([], {})
