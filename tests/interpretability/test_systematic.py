"""Predictions from weights alone, against plain loops and features whose tokens are planted."""

import numpy as np
import pandas as pd
import pytest
import torch

from helpers_circuits import assert_close, make_circuit, plain, without_weight
from transcoders.config import Model, Site, SyntheticModel
from transcoders.interpretability import predictions, systematic
from transcoders.interpretability.gather import Observed, Subject, Text
from transcoders.models import fetch_model, load_model, load_tokenizer


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
    source = SyntheticModel(type="synthetic", architecture="gemma2", license="none")
    model = Model(source=source, n_layers=1, d_model=32, bos_token="<|endoftext|>")
    fetch_model(model, tmp_path / "gemma2", seed=0)
    mix = {0: "transcoder"}
    circuit = make_circuit(load_model(tmp_path / "gemma2"), random_dictionary, mix, first=1)
    found = predictions.read_vocabulary(circuit).embedding
    alone = torch.arange(len(found))[:, None]
    with torch.no_grad():
        stream = plain(circuit.model).hf(alone, output_hidden_states=True).hidden_states[0]
    assert_close(found, stream[:, 0])


def test_linear_scores_are_weighted_de_embeddings_of_the_best_connected_features(
    circuit, vocabulary
):
    embedding = plain(circuit.model).hf.get_input_embeddings().weight
    weights = circuit.transcoders[0]
    found = predictions.score_tokens(circuit, vocabulary, vectors(circuit), "layer 0, linear")
    for row, vector in zip(found, vectors(circuit), strict=True):
        connections = {i: float(weights.W_dec[i] @ vector) for i in range(len(weights.W_dec))}
        best = sorted(connections, key=lambda i: -connections[i])[:10]
        expected = torch.zeros(len(embedding))
        for i in best:
            feature = circuit.encoder_vectors(0, torch.tensor([i]))[0]
            expected += connections[i] * (embedding @ feature)
        assert_close(row, expected, 1e-4)


def test_scores_through_layer_0_are_what_the_token_alone_writes(circuit, vocabulary):
    embedding = plain(circuit.model).hf.get_input_embeddings().weight
    norm = plain(circuit.model).blocks[0].norm_2
    weights = circuit.transcoders[0]
    found = predictions.score_tokens(circuit, vocabulary, vectors(circuit), "layer 0")
    for token in (0, 7, 100, len(embedding) - 1):
        z = torch.relu(without_weight(norm, embedding[token]) @ weights.W_enc + weights.b_enc)
        stream = embedding[token] + z @ weights.W_dec
        for row, vector in zip(found, vectors(circuit), strict=True):
            assert row[token].item() == pytest.approx(float(stream @ vector), rel=1e-3, abs=1e-4)


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


N_ROWS, N_POSITIONS = 60, 12


def planted(circuit, vocabulary, *, honest):
    """Features active on just the tokens that layer 0 predicts (or on the worst of them)."""
    n = circuit.transcoders[2].n_features
    every = circuit.encoder_vectors(2, torch.arange(n))
    scores = predictions.score_tokens(circuit, vocabulary, every, "layer 0")
    generator = torch.Generator().manual_seed(1)
    rows = torch.randint(2, 200, (N_ROWS, N_POSITIONS), generator=generator)
    examples = []
    for feature in range(4):
        order = scores[feature].argsort(descending=honest)
        for rank in range(6):
            row, position = feature * 6 + rank, 5 + rank % 3
            rows[row, position] = order[rank]
            examples += [
                {"feature": feature, "kind": kind, "rank": rank + 1, "row": row,
                 "position": position, "activation": 9.0 - rank}
                for kind in ("top", "sampled")
            ]  # fmt: skip
    features = pd.DataFrame({"feature": range(n), "frequency": [0.01] * 4 + [0.0] * (n - 4)})
    numbers = torch.arange(40)
    background = torch.stack([numbers % N_ROWS, numbers % (N_POSITIONS - 1) + 1], dim=1)
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
        assert sorted(table["feature"].unique()) == [0, 1, 2, 3]
        assert list(table["method"].unique()) == [*predictions.METHODS, "heads"]
        assert (own["precision"] == (1.0 if honest else 0.0)).all()
        assert ((own["correlation"] > 0.2) if honest else (own["correlation"] < 0)).all()
        assert table.loc[table["method"] == "heads", "correlation"].isna().all()
        assert (own["l0"] - 0.04).abs().max() < 1e-9
        assert not honest or (own["precision_control"] < own["precision"]).all()


def test_the_control_is_another_features_prediction(circuit, vocabulary, studied):
    observed, seen, table = studied[True]
    own = table[table["method"] == "layer 0"].reset_index(drop=True)
    every = circuit.encoder_vectors(2, torch.arange(4))
    scores = predictions.score_tokens(circuit, vocabulary, every, "layer 0")
    for place, row in own.iterrows():
        other = int(own["feature"][(int(str(place)) + 1) % 4])
        assert other != row["feature"]
        found = systematic.ActiveTokens(observed, seen, row["feature"])
        predicted = scores[other].topk(systematic.K).indices.numpy()
        assert row["precision_control"] == found.precision(predicted, "layer 0")
        assert row["correlation_control"] == pytest.approx(found.correlation(scores[other]))


def test_nothing_of_the_examples_reaches_the_predictions(studied):
    tables = [table[["feature", "method", "predicted"]] for *_, table in studied.values()]
    pd.testing.assert_frame_equal(*tables)


def test_tokens_before_the_peak_are_looked_for_in_a_window():
    rows = torch.arange(2, 26).reshape(2, 12)
    examples = pd.DataFrame(
        {"feature": 0, "kind": "top", "rank": [1, 2], "row": [0, 1], "position": [11, 2],
         "activation": [2.0, 1.0]}
    )  # fmt: skip
    text = Text(rows, torch.tensor([[0, 1]]))
    found = systematic.ActiveTokens(Observed(pd.DataFrame(), examples, torch.zeros(1, 1)), text, 0)
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
    both = pd.concat([table, table.assign(method="heads", correlation=np.nan)])
    found = systematic.summarise_studies(both, seed=0)
    assert found[["by", "group"]].drop_duplicates().to_numpy().tolist() == [
        ["all", "all"], ["layer", 2], ["layer", 12],
        *[[by, third] for by in ("L0", "frequency") for third in ("low", "middle", "high")],
    ]  # fmt: skip
    row = found[(found["by"] == "L0") & (found["group"] == "middle")].iloc[0]
    chosen = table[table["l0"] == 20]
    gain = chosen["precision"] - chosen["precision_control"]
    assert row["precision_gain"] == pytest.approx(gain.mean())
    assert row["precision_gain_low"] < gain.mean() < row["precision_gain_high"]
    heads = found[found["method"] == "heads"]
    assert heads["correlation"].isna().all() and heads["precision"].notna().all()
    # Equal values are in the same third, whatever the order of rows.
    equal = table.assign(l0=[1.0] * 3 + [2.0] * 6 + [3.0] * 3)
    for rows in (equal, equal.sample(frac=1, random_state=0)):
        found = systematic.summarise_studies(rows, seed=0).query("by == 'L0'")
        assert found.set_index("group")["n_features"].to_dict() == {
            "low": 3,
            "middle": 6,
            "high": 3,
        }
