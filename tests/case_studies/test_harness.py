"""A blind study answers right, and no token is shown before the hypothesis is on record."""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import yaml

from helpers_circuits import plain, plain_pass, without_weight
from transcoders.case_studies import transcript as transcripts
from transcoders.case_studies.answers import Answers
from transcoders.case_studies.harness import BlindStudy, RefusedError
from transcoders.case_studies.transcript import digest, verify_transcript
from transcoders.circuits import ReplacementModel, Tracer
from transcoders.circuits.export import paths_of_record, paths_record
from transcoders.circuits.graph import build_graph
from transcoders.circuits.invariant import connections, de_embeddings, direct_logits, through_head
from transcoders.circuits.notation import NodeKind
from transcoders.circuits.paths import Search, find_paths
from transcoders.circuits.vectors import contributions, feature_target
from transcoders.errors import UserError
from transcoders.interpretability.gather import Observed, Text, load_observed, load_text
from transcoders.layout import Layout

TOKEN = re.compile(r"\bw\d+\b|endoftext|unk")
"""What the tokens of the tiny models look like."""
SCALE, HYPOTHESIS = "smoke", "Fires after w7, whatever follows."


class Direct(NamedTuple):
    """What a study keeps to itself, held by the tests."""

    replacement: ReplacementModel
    tokenizer: Any
    text: Text
    observed: Observed
    unit: int
    """The feature of layer 1 that is studied: one with many examples."""

    @property
    def feature(self):
        return f"tc1[{self.unit}]"

    @property
    def examples(self):
        return self.observed.examples[self.observed.examples["feature"] == self.unit]

    @property
    def place(self):
        """Row and position of the best example that has a few tokens before it."""
        late = self.examples[self.examples["position"] >= 5].iloc[0]
        return {"row": int(late["row"]), "position": int(late["position"])}

    def local(self):
        tokens = self.text.rows[self.place["row"], : self.place["position"] + 1]
        return self.replacement.freeze(tokens.long())

    def study(self, path, *, restricted=False):
        return BlindStudy(SCALE, feature=self.feature, restricted=restricted, transcript=path)


@pytest.fixture(scope="module")
def direct(repository):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(repository)
        tracer, folder = Tracer.load(SCALE, "tiny-llama"), Layout(SCALE).observed
        observed = load_observed(folder, "tiny-llama_layer1_transcoder_l1-0.5")
        late = observed.examples[observed.examples["position"] >= 5]
        unit = int(late.groupby("feature").size().idxmax())
        yield Direct(tracer.replacement, tracer.tokenizer, load_text(folder), observed, unit)


@pytest.fixture(scope="module")
def studies(direct, tmp_path_factory):
    """An unrestricted study and a restricted one, by whether it is restricted."""
    folder = tmp_path_factory.mktemp("studies")
    return {
        restricted: direct.study(folder / f"{restricted}.json", restricted=restricted)
        for restricted in (False, True)
    }


@pytest.fixture
def study(direct, tmp_path):
    return direct.study(tmp_path / "transcript.json")


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
    of_feature = direct.observed.features.loc[direct.unit]
    assert studies[True].facts == {
        "feature": direct.feature, "restricted": True, "n_rows": 16, "row_length": 10,
        "dictionary": "tiny-llama_layer1_transcoder_l1-0.5", "first_position": 1,
        "layers": [0, 1], "n_heads": 2,
        **{name: close(of_feature[name]) for name in ("frequency", "mean", "largest")},
    }  # fmt: skip


def test_activations_are_the_transcoders(studies, direct):
    row = direct.place["row"]
    for layer, unit in ((1, direct.unit), (0, 7)):
        norm = plain(direct.replacement.model).blocks[layer].norm_2
        tokens = direct.text.rows[row].long()
        stream = plain_pass(direct.replacement.model, tokens).before_mlp[layer]
        z = direct.replacement.transcoders[layer].encode(without_weight(norm, stream))[:, unit]
        expected = [[at, close(value)] for at, value in enumerate(z.tolist())][1:]
        asked = {"row": row, "feature": f"tc{layer}[{unit}]"}
        assert studies[False].ask("activations", **asked) == expected
    assert studies[True].ask("activations", row=row)[direct.place["position"] - 1][1] > 0


def test_circuits_are_those_of_the_text_up_to_the_place(studies, direct):
    local = direct.local()
    target = feature_target(local, 1, direct.unit, direct.place["position"])
    some = {"components": ["feature", "head", "error"], "layers": [0], "sign": "both"}
    for arguments, search in (
        ({}, Search(sign="positive")),
        (some, Search(**some)),
        ({"heads": ["attn1[0]", "attn0[1]"]}, Search(heads=[(1, 0), (0, 1)], sign="positive")),
    ):
        expected = paths_record(find_paths(local, target, search))
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


def test_tables_hold_what_is_answered(study, direct, tmp_path):
    name, examples = direct.feature, study.examples()
    assert examples.to_dict("records") == study.ask("examples")
    first = examples.iloc[0]  # NumPy's numbers are numbers, too
    activation = study.activations(first["row"])[first["position"]]
    assert activation == close(first["activation"])
    circuit = study.circuit(**direct.place, n_paths=6)
    assert paths_record(circuit.paths) == study.ask("circuit", **direct.place, n_paths=6)
    assert circuit.table(2).count("\n") == 1
    assert study.pull_back(name, " attn0[0]") == f"{name} <- attn0[0]"
    for question, first_column, asked in (
        ("de_embedding", "token", {"vector": name}),
        ("direct_logits", "token", {"feature": name}),
        ("connections", "feature", {"vector": name, "layer": 0}),
    ):
        table = getattr(study, question)(**asked, k=3)
        assert list(table) == [first_column, "value"]
        assert table.to_numpy().tolist() == study.ask(question, **asked, k=3)
    assert not TOKEN.search((tmp_path / "transcript.json").read_text())


# What is refused.

REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "tokens": ("tokens", {"row": 0}, "a blind study does not answer this"),
    "silent texts": ("silent_texts", {}, "does not answer"),
    "logit as target": ("circuit", {"feature": "logit[w1]@-1"}, "expected a feature by its name"),
    "another option": ("circuit", {"target": "tc1[3]"}, "target: a search has no such option"),
    "no transcoder": ("circuit", {"feature": "tc2[0]"}, r"tc2\[0\]: layer 2 has no transcoder"),
    "row beyond": ("activations", {"row": 16}, "row 16: expected one from 0 to 15"),
    "position beyond": ("circuit", {"position": 10}, "token 10: expected one from"),
    "position of BOS": ("circuit", {"position": 0}, "no transcoder was trained on token 0"),
    "vector of a prompt": ("de_embedding", {"vector": "tc1[3]@4"}, "by its name alone"),
    "vector and row": ("de_embedding", {"vector": "tc1[3]", "row": 0}, "row: Unexpected keyword"),
    "own layer": ("connections", {"vector": "tc1[3]", "layer": 1}, "writes nothing"),
    "later part": ("pull_back", {"vector": "tc0[3]", "through": "attn1[0]"}, "writes nothing"),
    "head beyond": ("pull_back", {"vector": "tc1[3]", "through": "attn1[2]"}, "a head from 0 to 1"),
    "blank hypothesis": ("reveal", {"hypothesis": " --\n"}, "expected a hypothesis in words"),
}  # fmt: skip


def test_refusals_say_why_and_are_recorded(study, tmp_path, direct):
    for case, (question, arguments, message) in REFUSED.items():
        asked = (direct.place if question == "circuit" else {}) | arguments
        with pytest.raises(RefusedError, match=message) as caught:
            study.ask(question, **asked)
        last = json.loads((tmp_path / "transcript.json").read_text())[-1]
        assert (last["question"], last["arguments"]) == (question, asked), case
        assert (last["refused"], last["answer"]) == (str(caught.value), None)
    assert len(json.loads((tmp_path / "transcript.json").read_text())) == 1 + len(REFUSED)
    with pytest.raises(RefusedError, match="only after a hypothesis"):
        study.silent_texts()


def test_a_failing_question_says_no_more_than_the_kind_of_failure(study, tmp_path, monkeypatch):
    def fail(_):
        raise KeyError("w5 stands there")

    monkeypatch.setattr(Answers, "examples", fail)
    with pytest.raises(RefusedError, match=r"^examples: failed with KeyError$") as caught:
        study.ask("examples")
    assert caught.value.__context__ is None
    assert "w5" not in (tmp_path / "transcript.json").read_text()


# The restricted variant.


def test_restricted_circuits_hide_the_features_of_layer_0(studies, direct):
    for search in ({}, {"n_paths": 300, "components": ["feature", "mlp", "head", "error"]}):
        for restricted, study in studies.items():
            found = study.ask("circuit", **direct.place, sign="both", **search)
            kinds = {(path["kind"], path["layer"]) for path in found}
            assert (("feature", 0) in kinds) != restricted
            assert not restricted or ("mlp", 0) in kinds


def test_restricted_circuits_add_up_the_features_of_layer_0(studies, direct):
    local = direct.local()
    target = feature_target(local, 1, direct.unit, direct.place["position"])
    parts = contributions(local, target.vectors)
    of_layer_0 = (parts.columns.kind == NodeKind.FEATURE.code) & (parts.columns.layer == 0)
    asked = {**direct.place, "sign": "both"}
    found = studies[True].ask("circuit", **asked, iterations=1, n_paths=1000)
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
        for feature in ("tc0[0]", " tc0[0] ", "tc00[5]"):
            with pytest.raises(RefusedError, match="a restricted study hides what prompts make"):
                studies[True].ask(question, **place, feature=feature)


def test_a_study_that_cannot_begin_says_why(tmp_path, monkeypatch):
    def refuse(message, feature="tc1[3]", path=tmp_path / "transcript.json"):
        with pytest.raises(UserError, match=message):
            BlindStudy(SCALE, feature=feature, restricted=True, transcript=path)

    refuse("layer 2 has no transcoder", "tc2[3]")
    refuse("a restricted study hides what prompts make of layer 0", "tc0[3]")
    (tmp_path / "there.json").touch()
    refuse("this transcript exists already and stays", path=tmp_path / "there.json")
    settings = yaml.safe_load(Path(f"config/{SCALE}.yaml").read_text())
    del settings["interpretability"]
    (tmp_path / "config").mkdir()
    (tmp_path / f"config/{SCALE}.yaml").write_text(yaml.safe_dump(settings))
    monkeypatch.chdir(tmp_path)
    refuse("interpretability: this key is missing")


# The transcript.


@pytest.fixture(scope="module")
def sealed(direct, tmp_path_factory):
    """A finished study's transcript, and what was revealed."""
    path = tmp_path_factory.mktemp("sealed") / "transcript.json"
    study = direct.study(path)
    study.examples()
    with pytest.raises(RefusedError):
        study.ask("tokens", row=0)
    study.de_embedding(direct.feature)
    return path, study.reveal(HYPOTHESIS), study


def test_a_transcript_holds_every_question(sealed, direct):
    path, revealed, study = sealed
    entries = verify_transcript(path)
    assert entries[-1]["arguments"]["hypothesis"] == HYPOTHESIS
    assert revealed.seal == entries[-1]["digest"]
    assert [entry["question"] for entry in entries] == [
        "open", "examples", "tokens", "de_embedding", "reveal",
    ]  # fmt: skip
    first, examples, refused, _, last = entries
    assert first["arguments"].keys() == {"feature", "restricted", "dictionary", "text"}
    assert first["answer"] == digest(study.facts)
    assert examples["answer"] == digest([{**row, "activation": float(f"{row['activation']:.6g}")}
        for row in direct.examples.drop(columns="feature").to_dict("records")])  # fmt: skip
    assert refused["answer"] is None and "does not answer" in refused["refused"]
    assert last["answer"] == digest(revealed.examples.to_dict("records"))
    # No tokens, but for the hypothesis.
    assert set(TOKEN.findall(path.read_text())) == {"w7"}


def test_what_is_revealed_is_the_text(sealed, direct):
    for example in sealed[1].examples.itertuples():  # whole rows, which are short
        tokens, at = direct.text.rows[example.row].tolist(), example.position
        words = [f"w{token - 2}" if token else "<|endoftext|>" for token in tokens]
        assert example.text == f"{' '.join(words[:at])}⟦{words[at]}⟧{' '.join(words[at + 1 :])}"


def test_after_the_seal_nothing_is_answered_or_written(sealed):
    path, _, study = sealed
    kept = path.read_bytes()
    for ask in (study.examples, lambda: study.reveal("Something else, now that I have seen it.")):
        with pytest.raises(RefusedError, match="the study is sealed"):
            ask()
    assert path.read_bytes() == kept


def test_what_cannot_be_recorded_is_not_answered(study, tmp_path, monkeypatch):
    path = tmp_path / "transcript.json"
    kept = path.read_bytes()

    def fail(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(transcripts, "write_json", fail)
        with pytest.raises(OSError, match="No space left on device"):
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
