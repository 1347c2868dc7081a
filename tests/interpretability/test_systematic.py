"""Predictions from weights alone, against plain loops and features whose tokens are planted."""

import numpy as np
import pandas as pd
import pytest
import torch

from helpers_circuits import assert_close, make_circuit, plain, without_weight
from helpers_models import make_tiny_model
from transcoders.config import Site
from transcoders.interpretability import predictions, systematic
from transcoders.interpretability.gather import Observed, Subject, Text
from transcoders.models import load_model, load_tokenizer


@pytest.fixture(scope="module", params=["gpt2", "gpt_neox", "llama"])
def circuit(request, tiny_models, random_dictionary):
    model = load_model(tiny_models[request.param])
    mix = {0: "transcoder", 2: "transcoder"}
    return make_circuit(model, random_dictionary, mix, first=1)


@pytest.fixture(scope="module")
def vocabulary(circuit):
    return predictions.read_vocabulary(circuit)


def vectors(circuit):
    return circuit.encoder_vectors(2, torch.tensor([0, 5, 9]))


def test_embeddings_are_as_they_enter_the_residual_stream(tmp_path, random_dictionary):
    model = load_model(make_tiny_model("gemma2", tmp_path / "gemma2"))
    circuit = make_circuit(model, random_dictionary, {0: "transcoder"}, first=1)
    found = predictions.read_vocabulary(circuit).embedding
    alone = torch.arange(len(found))[:, None]
    with torch.no_grad():
        stream = plain(circuit.model).hf(alone, output_hidden_states=True).hidden_states[0]
    assert_close(found, stream[:, 0])


def test_linear_scores_are_weighted_de_embeddings_of_the_best_connected_features(
    circuit, vocabulary
):
    embedding = plain(circuit.model).hf.get_input_embeddings().weight
    found = predictions.score_tokens(circuit, vocabulary, vectors(circuit), "layer 0, linear")
    for row, vector in zip(found, vectors(circuit), strict=True):
        connections = circuit.transcoders[0].W_dec @ vector
        best = connections.argsort(descending=True)[:10]
        features = circuit.encoder_vectors(0, best)
        assert_close(row, embedding @ (connections[best] @ features), 1e-4)


def test_scores_through_layer_0_are_what_the_token_alone_writes(circuit, vocabulary):
    embedding = plain(circuit.model).hf.get_input_embeddings().weight
    norm = plain(circuit.model).blocks[0].norm_2
    weights = circuit.transcoders[0]
    found = predictions.score_tokens(circuit, vocabulary, vectors(circuit), "layer 0")
    tokens = [0, 7, 100, len(embedding) - 1]
    z = torch.relu(without_weight(norm, embedding[tokens]) @ weights.W_enc + weights.b_enc)
    streams = embedding[tokens] + z @ weights.W_dec
    expected = (vectors(circuit) @ streams.T).detach().numpy()
    assert found[:, tokens].numpy() == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_heads_are_those_below_through_which_tokens_move_the_feature_most(circuit, vocabulary):
    vector = vectors(circuit)[0]
    found = predictions.vectors_of_heads(circuit, vocabulary, vector, 2)
    embedding = plain(circuit.model).hf.get_input_embeddings().weight
    layers = range(2 if circuit.is_parallel else 3)
    reads = [
        circuit.W_V[layer, head] @ (circuit.W_O[layer, head] @ vector)
        for layer in layers for head in range(circuit.n_heads)
    ]  # fmt: skip
    best = sorted(reads, key=lambda read: -(embedding @ read).max().item())[:3]
    for row, expected in zip(found, best, strict=True):
        assert_close(row, expected)


def planted(circuit, vocabulary, *, honest):
    """Features active on just the tokens that layer 0 predicts (or on the worst of them)."""
    n, first = circuit.transcoders[2].n_features, circuit.encoder_vectors(2, torch.arange(4))
    scores = predictions.score_tokens(circuit, vocabulary, first, "layer 0")
    rows = torch.randint(2, 200, (60, 12), generator=torch.Generator().manual_seed(1))
    examples = []
    for feature in range(4):
        for rank, token in enumerate(scores[feature].argsort(descending=honest)[:6]):
            row, position = feature * 6 + rank, 5 + rank % 3
            rows[row, position] = token
            examples += [
                {"feature": feature, "kind": kind, "rank": rank + 1, "row": row,
                 "position": position, "activation": 9.0 - rank}
                for kind in ("top", "sampled")
            ]  # fmt: skip
    features = pd.DataFrame({"feature": range(n), "frequency": [0.01] * 4 + [0.0] * (n - 4)})
    background = torch.stack([torch.arange(40), torch.arange(40) % 11 + 1], dim=1)
    observed = Observed(features, pd.DataFrame(examples), torch.zeros(40, n))
    return observed, Text(rows, background)


@pytest.fixture(scope="module")
def studied(circuit, vocabulary, tiny_models):
    """By whether features do as layer 0 predicts."""
    tokenizer, made = load_tokenizer(tiny_models["gpt2"]), {}
    for honest in (True, False):
        observed, seen = planted(circuit, vocabulary, honest=honest)
        subject = Subject("name", Site(model="m", layer=2), circuit.transcoders[2], observed)
        table = systematic.study_features(
            circuit, vocabulary, subject, seen, tokenizer, n_features=4, seed=0
        )
        made[honest] = observed, seen, table
    return made


def test_features_that_do_as_predicted_get_the_full_score_and_others_none(studied):
    for honest, (_, _, table) in studied.items():
        own = table[table["method"] == "layer 0"]
        assert sorted(own["feature"]) == [0, 1, 2, 3]
        assert (own["precision"] == (1.0 if honest else 0.0)).all()
        assert ((own["correlation"] > 0.2) if honest else (own["correlation"] < 0)).all()
        assert (own["l0"] - 0.04).abs().max() < 1e-9
        assert not honest or (own["precision_control"] < own["precision"]).all()
    # Nothing of the examples reaches the predictions.
    tables = [table[["feature", "method", "predicted"]] for *_, table in studied.values()]
    pd.testing.assert_frame_equal(*tables)


def test_the_control_is_another_features_prediction(circuit, vocabulary, studied):
    observed, seen, table = studied[True]
    own = table[table["method"] == "layer 0"].reset_index(drop=True)
    every = circuit.encoder_vectors(2, torch.arange(4))
    scores = predictions.score_tokens(circuit, vocabulary, every, "layer 0")
    for (_, row), other in zip(own.iterrows(), np.roll(own["feature"], -1), strict=True):
        found = systematic.ActiveTokens(observed, seen, row["feature"])
        predicted = scores[other].topk(systematic.K).indices.numpy()
        assert row["precision_control"] == found.precision(predicted, "layer 0")
        assert row["correlation_control"] == pytest.approx(found.correlation(scores[other]))


def test_tokens_before_the_peak_are_looked_for_in_a_window():
    rows = torch.arange(2, 26).reshape(2, 12)
    examples = pd.DataFrame(
        {"feature": 0, "kind": "top", "rank": [1, 2], "row": [0, 1], "position": [11, 2],
         "activation": [2.0, 1.0]}
    )  # fmt: skip
    text = Text(rows, torch.tensor([[0, 1]]))
    observed = Observed(pd.DataFrame(), examples, torch.zeros(1, 1))
    found = systematic.ActiveTokens(observed, text, 0)
    assert found.peaks == [{13}, {16}]
    assert found.before == [set(range(5, 13)), {14, 15}]
    for predicted, before, at_peak in (([5], 0.5, 0), ([4], 0, 0), ([13, 14], 0.5, 0.5)):
        assert found.precision(np.array(predicted), "heads") == before
        assert found.precision(np.array(predicted), "direct") == at_peak


def test_summaries_take_features_together_by_layer_and_by_thirds():
    random = np.random.default_rng(0)
    scores = ("precision", "precision_control", "correlation", "correlation_control")
    table = pd.DataFrame(
        {"layer": np.repeat([12, 2], 6), "l0": np.repeat([10.0, 20, 30], 4), "feature": range(12),
         "method": "layer 0", "frequency": random.random(12),
         **{score: random.random(12) for score in scores}}
    )  # fmt: skip
    found = systematic.summarise_studies(table, seed=0)
    assert found[["by", "group"]].drop_duplicates().to_numpy().tolist() == [
        ["all", "all"], ["layer", 2], ["layer", 12],
        *[[by, third] for by in ("L0", "frequency") for third in ("low", "middle", "high")],
    ]  # fmt: skip
    row = found.query("by == 'L0' and group == 'middle'").squeeze()
    gain = table.eval("precision - precision_control")[table["l0"] == 20]
    assert row["precision_gain"] == pytest.approx(gain.mean())
    assert row["precision_gain_low"] < gain.mean() < row["precision_gain_high"]
    # Equal values are in the same third, whatever the order of rows.
    equal = table.assign(l0=[1.0] * 3 + [2.0] * 6 + [3.0] * 3).sample(frac=1, random_state=0)
    thirds = systematic.summarise_studies(equal, seed=0).query("by == 'L0'").set_index("group")
    assert thirds["n_features"].to_dict() == {"low": 3, "middle": 6, "high": 3}
