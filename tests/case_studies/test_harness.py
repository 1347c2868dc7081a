"""A blind study answers right, and no token is shown before the hypothesis is on record."""

import json
import re
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from helpers_circuits import plain, plain_pass, without_weight
from transcoders.case_studies import transcript as transcripts
from transcoders.case_studies.answers import Answers
from transcoders.case_studies.harness import BlindStudy, RefusedError
from transcoders.case_studies.transcript import digest, verify_transcript
from transcoders.circuits import Tracer
from transcoders.circuits.export import paths_of_record, paths_record
from transcoders.circuits.graph import build_graph
from transcoders.circuits.invariant import connections, de_embeddings, direct_logits, through_head
from transcoders.circuits.notation import NodeKind
from transcoders.circuits.paths import Search, find_paths
from transcoders.circuits.vectors import contributions, feature_target
from transcoders.errors import UserError
from transcoders.interpretability.gather import load_observed, load_text
from transcoders.layout import Layout

TOKEN = re.compile(r"\bw\d+\b|endoftext|unk")
"""What the tokens of the tiny models look like."""
SCALE, DICTIONARY = "smoke", "tiny-llama_layer1_transcoder_l1-0.5"
HYPOTHESIS = "Fires after w7, whatever follows."


@pytest.fixture(scope="module")
def direct(repository):
    """What a study keeps to itself, held by the tests; a feature of layer 1 is studied."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(repository)
        tracer, folder = Tracer.load(SCALE, "tiny-llama"), Layout(SCALE).observed
        text, observed = load_text(folder), load_observed(folder, DICTIONARY)
        # The best example that has a few tokens before it, of the feature that has most of these.
        unit = int(observed.examples.query("position >= 5")["feature"].mode()[0])
        examples = observed.examples.query("feature == @unit")
        late = examples.query("position >= 5").iloc[0]
        place = {"row": int(late["row"]), "position": int(late["position"])}
        local = tracer.replacement.freeze(text.rows[place["row"], : place["position"] + 1].long())
        yield SimpleNamespace(
            replacement=tracer.replacement, tokenizer=tracer.tokenizer, text=text, unit=unit,
            feature=f"tc1[{unit}]", examples=examples, place=place, local=local,
            target=feature_target(local, 1, unit, place["position"]),
            frequency=observed.features.loc[unit, "frequency"],
        )  # fmt: skip


def begin(direct, path, *, restricted=False):
    return BlindStudy(SCALE, feature=direct.feature, restricted=restricted, transcript=path)


@pytest.fixture(scope="module")
def studies(direct, tmp_path_factory):
    """An unrestricted study and a restricted one, by whether it is restricted."""
    folder = tmp_path_factory.mktemp("studies")
    return {
        restricted: begin(direct, folder / f"{restricted}.json", restricted=restricted)
        for restricted in (False, True)
    }


@pytest.fixture
def study(direct, tmp_path):
    return begin(direct, tmp_path / "transcript.json")


def close(value):
    """Equal but for the rounding of answers and of sums."""
    return pytest.approx(value, rel=2e-5, abs=1e-5)


def named(best, name):
    pairs = zip(best.indices[0].tolist(), best.values[0].tolist(), strict=True)
    return [[name(number), close(value)] for number, value in pairs]


# What is answered.


def test_examples_and_facts_are_those_that_were_gathered(studies, direct):
    found = studies[False].ask("examples")
    expected = direct.examples.drop(columns="feature").to_dict("records")
    assert found == [{**row, "activation": close(row["activation"])} for row in expected]
    assert len(found) >= 6 and studies[True].ask("examples") == found
    assert studies[True].facts["frequency"] == close(direct.frequency)
    assert not TOKEN.search(str(studies[True].facts))


def test_activations_are_the_transcoders(studies, direct):
    row = direct.place["row"]
    for layer, unit in ((1, direct.unit), (0, 7)):
        norm = plain(direct.replacement.model).blocks[layer].norm_2
        tokens = direct.text.rows[row].long()
        stream = plain_pass(direct.replacement.model, tokens).before_mlp[layer]
        z = direct.replacement.transcoders[layer].encode(without_weight(norm, stream))[:, unit]
        expected = [[at, close(value)] for at, value in enumerate(z.tolist())][1:]
        # NumPy's numbers are numbers, too.
        asked = {"row": np.int64(row), "feature": f"tc{layer}[{unit}]"}
        assert studies[False].ask("activations", **asked) == expected


def test_circuits_are_those_of_the_text_up_to_the_place(studies, direct):
    both = {"heads": ["attn1[0]", "attn0[1]"], "sign": "both"}
    for arguments, search in (
        ({}, Search(sign="positive")),
        (both, Search(heads=[(1, 0), (0, 1)], sign="both")),
    ):
        expected = paths_record(find_paths(direct.local, direct.target, search))
        found = studies[False].ask("circuit", **direct.place, **arguments)
        assert len(found) == len(expected) > 3
        for path, wanted in zip(found, expected, strict=True):
            numbers = ("attribution", "activation", "bias", "error")
            assert path == wanted | {name: close(wanted[name]) for name in numbers}


@pytest.mark.parametrize("largest", [True, False])
def test_what_weights_say(studies, direct, largest):
    study, circuit, name = studies[True], direct.replacement, direct.feature
    asked = {"k": 4, "largest": largest}
    one, four = torch.tensor([direct.unit]), torch.tensor([4])
    reads, of_layer_0 = circuit.encoder_vectors(1, one), circuit.encoder_vectors(0, four)
    writes = circuit.transcoders[0].W_dec[4]
    chain = f" {name}<-tc0[4]<-attn0[0]"
    vectors = {
        name: reads,
        f"{name} <- attn0[1]": through_head(circuit, reads, 0, 1),
        "tc0[4]": of_layer_0,
        chain: through_head(circuit, (reads @ writes) * of_layer_0, 0, 0),
    }

    def word(token):
        return direct.tokenizer.decode([token])

    for vector, expected in vectors.items():
        best = de_embeddings(circuit, expected, 4, largest=largest)
        assert study.ask("de_embedding", vector=vector, **asked) == named(best, word)
    best = direct_logits(circuit, writes[None], 4, largest=largest)
    assert study.ask("direct_logits", feature="tc0[4]", **asked) == named(best, word)
    best = connections(circuit, 0, 1, one, 4, largest=largest)
    found = study.ask("connections", vector=name, layer=0, **asked)
    assert found == named(best, lambda unit: f"tc0[{unit}]")


# What is refused.

REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "tokens": ("tokens", {"row": 0}, "a blind study does not answer this"),
    "logit as target": ("circuit", {"feature": "logit[w1]@-1"}, "expected a feature by its name"),
    "another option": ("circuit", {"target": "tc1[3]"}, "target: a search has no such option"),
    "row beyond": ("activations", {"row": 16}, "row 16: expected one from 0 to 15"),
    "position of BOS": ("circuit", {"position": 0}, "no transcoder was trained on token 0"),
    "vector of a prompt": ("de_embedding", {"vector": "tc1[3]@4"}, "by its name alone"),
    "vector and row": ("de_embedding", {"vector": "tc1[3]", "row": 0}, "row: Unexpected keyword"),
    "own layer": ("connections", {"vector": "tc1[3]", "layer": 1}, "writes nothing"),
    "later part": ("pull_back", {"vector": "tc0[3]", "through": "attn1[0]"}, "writes nothing"),
    "blank hypothesis": ("reveal", {"hypothesis": " --\n"}, "expected a hypothesis in words"),
}  # fmt: skip


def test_refusals_say_why_and_are_recorded(study, tmp_path, direct):
    refusals = []
    for question, arguments, message in REFUSED.values():
        asked = (direct.place if question == "circuit" else {}) | arguments
        with pytest.raises(RefusedError, match=message) as caught:
            study.ask(question, **asked)
        refusals.append((question, asked, str(caught.value), None))
    _, *entries = json.loads((tmp_path / "transcript.json").read_text())
    keys = ("question", "arguments", "refused", "answer")
    assert [tuple(entry[key] for key in keys) for entry in entries] == refusals
    with pytest.raises(RefusedError, match="only after a hypothesis"):
        study.silent_texts()


def test_a_failing_question_says_no_more_than_the_kind_of_failure(study, tmp_path, monkeypatch):
    monkeypatch.setattr(Answers, "examples", lambda _: {}["w5 stands there"])
    with pytest.raises(RefusedError, match=r"^examples: failed with KeyError$") as caught:
        study.ask("examples")
    assert caught.value.__context__ is None
    assert "w5" not in (tmp_path / "transcript.json").read_text()


# The restricted variant.


def test_restricted_circuits_hide_the_features_of_layer_0_and_add_them_up(studies, direct):
    parts = contributions(direct.local, direct.target.vectors)
    of_layer_0 = (parts.columns.kind == NodeKind.FEATURE.code) & (parts.columns.layer == 0)
    asked = {**direct.place, "sign": "both"}
    found = studies[True].ask("circuit", **asked, iterations=1, n_paths=1000)
    assert ("feature", 0) not in {(path["kind"], path["layer"]) for path in found}
    node = f"mlp0@{direct.place['position']}"
    (together,) = [path for path in found if path["node"] == node]
    assert together["attribution"] == close(parts.values[0, of_layer_0].sum().item())
    # The rest of the circuit is whole: a node's attribution is the sum over its causes.
    graph = build_graph(paths_of_record(studies[True].ask("circuit", **asked)))
    for node in graph:
        causes = [data["path_attribution"] for *_, data in graph.in_edges(node, data=True)]
        if causes:
            assert sum(causes) == pytest.approx(graph.nodes[node]["attribution"], abs=2e-4)


def test_restricted_studies_hide_prompts_on_layer_0(studies, direct):
    for question, place in (("activations", {"row": 0}), ("circuit", direct.place)):
        for feature in (" tc0[0] ", "tc00[5]"):
            with pytest.raises(RefusedError, match="a restricted study hides what prompts make"):
                studies[True].ask(question, **place, feature=feature)


def test_a_study_that_cannot_begin_says_why(tmp_path):
    path = tmp_path / "transcript.json"
    with pytest.raises(UserError, match="a restricted study hides what prompts make of layer 0"):
        BlindStudy(SCALE, feature="tc0[3]", restricted=True, transcript=path)
    path.touch()
    with pytest.raises(UserError, match="this transcript exists already and stays"):
        BlindStudy(SCALE, feature="tc1[3]", transcript=path)


# The transcript.


@pytest.fixture(scope="module")
def sealed(direct, tmp_path_factory):
    """A finished study's transcript, and what was revealed."""
    path = tmp_path_factory.mktemp("sealed") / "transcript.json"
    study = begin(direct, path)
    study.examples()
    with pytest.raises(RefusedError):
        study.ask("tokens", row=0)
    study.de_embedding(direct.feature)
    return path, study.reveal(HYPOTHESIS), study


def test_a_transcript_holds_every_question_up_to_the_hypothesis_that_seals_it(sealed):
    path, revealed, study = sealed
    first, examples, refused, _, last = entries = verify_transcript(path)
    questions = [entry["question"] for entry in entries]
    assert questions == ["open", "examples", "tokens", "de_embedding", "reveal"]
    assert last["arguments"]["hypothesis"] == HYPOTHESIS and revealed.seal == last["digest"]
    assert first["arguments"].keys() == {"feature", "restricted", "dictionary", "text"}
    assert first["answer"] == digest(study.facts)
    seen = revealed.examples
    assert last["answer"] == digest(seen.to_dict("records"))
    assert examples["answer"] == digest(seen.drop(columns="text").to_dict("records"))
    assert refused["answer"] is None and "does not answer" in refused["refused"]
    # No tokens, but for the hypothesis.
    kept = path.read_text()
    assert set(TOKEN.findall(kept)) == {"w7"}
    # After the seal nothing is answered or written.
    for question, arguments in (("examples", {}), ("reveal", {"hypothesis": "Something else."})):
        with pytest.raises(RefusedError, match="the study is sealed"):
            study.ask(question, **arguments)
    assert path.read_text() == kept


def test_what_is_revealed_is_the_text(sealed, direct):
    for example in sealed[1].examples.itertuples():  # whole rows, which are short
        tokens, at = direct.text.rows[example.row].tolist(), example.position
        words = [f"w{token - 2}" if token else "<|endoftext|>" for token in tokens]
        assert example.text == f"{' '.join(words[:at])}⟦{words[at]}⟧{' '.join(words[at + 1 :])}"


def test_what_cannot_be_recorded_is_not_answered(study, tmp_path, monkeypatch):
    path = tmp_path / "transcript.json"
    kept = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(transcripts, "write_json", Mock(side_effect=OSError("No space left")))
        with pytest.raises(OSError, match="No space left"):
            study.reveal(HYPOTHESIS)
    assert path.read_bytes() == kept
    assert len(study.reveal(HYPOTHESIS).examples)
    assert [entry["question"] for entry in json.loads(path.read_text())] == ["open", "reveal"]


def test_tampered_transcripts_are_found_out(sealed, tmp_path):
    copied, entries = tmp_path / "transcript.json", json.loads(sealed[0].read_text())
    another = entries[4] | {"arguments": {"hypothesis": "I knew."}}
    for tampered, message in (
        ([*entries[:4], another], "entry 4: expected the entry that was written there"),
        (entries[:2] + entries[3:], "entry 2: expected the entry that was written there"),
        (entries[:-1], "expected an accepted hypothesis at the end"),
    ):
        copied.write_text(json.dumps(tampered))
        with pytest.raises(UserError, match=re.escape(f"{copied}: {message}")):
            verify_transcript(copied)
