"""A blind study answers right, and no token is shown before the hypothesis is on record."""

import json
import re
from collections.abc import Callable
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
HYPOTHESIS = "Fires after w7, whatever follows."


class Direct(NamedTuple):
    """What a study keeps to itself, held by the tests."""

    scale: str
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
        return BlindStudy(self.scale, feature=self.feature, restricted=restricted, transcript=path)


@pytest.fixture(scope="module")
def load(repository):
    def load(scale):
        tracer, folder = Tracer.load(scale, "tiny-llama"), Layout(scale).observed
        observed = load_observed(folder, "tiny-llama_layer1_transcoder_l1-0.5")
        late = observed.examples[observed.examples["position"] >= 5]
        unit = int(late.groupby("feature").size().idxmax())
        text = load_text(folder)
        return Direct(scale, tracer.replacement, tracer.tokenizer, text, observed, unit)

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(repository)
        yield load


@pytest.fixture(scope="module", params=["gpt-neox", "llama"])
def any_direct(request, load):
    return load(request.param)


@pytest.fixture(scope="module")
def any_studies(any_direct, tmp_path_factory):
    """A study of every architecture, by whether it is restricted."""
    folder = tmp_path_factory.mktemp("studies")
    return {
        restricted: any_direct.study(folder / f"{restricted}.json", restricted=restricted)
        for restricted in (False, True)
    }


@pytest.fixture(scope="module")
def direct(load):
    return load("llama")


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


def test_examples_and_facts_are_those_that_were_gathered(any_studies, any_direct):
    found = any_studies[False].ask("examples")
    expected = any_direct.examples.drop(columns="feature").to_dict("records")
    assert found == [{**row, "activation": close(row["activation"])} for row in expected]
    assert len(found) >= 6 and any_studies[True].ask("examples") == found
    of_feature = any_direct.observed.features.loc[any_direct.unit]
    assert any_studies[True].facts == {
        "feature": any_direct.feature, "restricted": True, "n_rows": 16, "row_length": 10,
        "dictionary": "tiny-llama_layer1_transcoder_l1-0.5", "first_position": 1,
        "layers": [0, 1], "n_heads": 2,
        **{name: close(of_feature[name]) for name in ("frequency", "mean", "largest")},
    }  # fmt: skip


def test_activations_are_the_transcoders(any_studies, any_direct):
    row = any_direct.place["row"]
    for layer, unit in ((1, any_direct.unit), (0, 7)):
        norm = plain(any_direct.replacement.model).blocks[layer].norm_2
        tokens = any_direct.text.rows[row].long()
        stream = plain_pass(any_direct.replacement.model, tokens).before_mlp[layer]
        z = any_direct.replacement.transcoders[layer].encode(without_weight(norm, stream))[:, unit]
        expected = [[at, close(value)] for at, value in enumerate(z.tolist())][1:]
        asked = {"row": row, "feature": f"tc{layer}[{unit}]"}
        assert any_studies[False].ask("activations", **asked) == expected
    assert any_studies[True].ask("activations", row=row)[any_direct.place["position"] - 1][1] > 0


@pytest.mark.parametrize(
    ("arguments", "search"),
    [
        ({}, Search(sign="positive")),
        (
            {"components": ["feature", "head", "error"], "layers": [0], "sign": "both"},
            Search(components=["feature", "head", "error"], layers=[0], sign="both"),
        ),
        ({"heads": ["attn1[0]", "attn0[1]"]}, Search(heads=[(1, 0), (0, 1)], sign="positive")),
    ],
)
def test_circuits_are_those_of_the_text_up_to_the_place(any_studies, any_direct, arguments, search):
    local = any_direct.local()
    target = feature_target(local, 1, any_direct.unit, any_direct.place["position"])
    expected = find_paths(local, target, search)
    found = any_studies[False].ask("circuit", **any_direct.place, **arguments)
    assert len(found) == len(expected) > 3
    for path, wanted in zip(found, paths_record(expected), strict=True):
        numbers = ("attribution", "activation", "bias", "error")
        assert path == wanted | {name: close(wanted[name]) for name in numbers}


@pytest.mark.parametrize("largest", [True, False])
def test_what_weights_say(any_studies, any_direct, largest):
    study, circuit, name = any_studies[True], any_direct.replacement, any_direct.feature
    asked = {"k": 4, "largest": largest}
    one, four = torch.tensor([any_direct.unit]), torch.tensor([4])
    reads, of_layer_0 = circuit.encoder_vectors(1, one), circuit.encoder_vectors(0, four)
    writes = circuit.transcoders[0].W_dec[4]
    chain = f" {name}<-tc0[4]<-attn0[0]"
    vectors = {
        name: reads,
        f"{name} <- attn0[1]": through_head(circuit, reads, 0, 1),
        "tc0[4]": of_layer_0,
        chain: through_head(circuit, (reads @ writes) * of_layer_0, 0, 0),
    }
    if circuit.is_parallel:  # there a block's head does not feed its own MLP
        del vectors[chain]
        with pytest.raises(RefusedError, match="writes nothing that is read there"):
            study.ask("de_embedding", vector=chain)

    def word(token):
        return any_direct.tokenizer.decode([token])

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
    "a private method": ("_row", {"row": 0}, "does not answer"),
    "silent texts": ("silent_texts", {}, "does not answer"),
    "logit as target": ("circuit", {"feature": "logit[w1]@-1"}, "expected a feature by its name"),
    "another option": ("circuit", {"target": "tc1[3]"}, "target: a search has no such option"),
    "no transcoder": ("circuit", {"feature": "tc2[0]"}, r"tc2\[0\]: layer 2 has no transcoder"),
    "row beyond": ("activations", {"row": 16}, "row 16: expected one from 0 to 15"),
    "position beyond": ("circuit", {"position": 10}, "token 10: expected one from"),
    "position of BOS": ("circuit", {"position": 0}, "no transcoder was trained on token 0"),
    "vector of a prompt": ("de_embedding", {"vector": "tc1[3]@4"}, "by its name alone"),
    "raw vector": ("de_embedding", {"vector": [0.1] * 32}, "vector: Input should be a valid str"),
    "vector and row": ("de_embedding", {"vector": "tc1[3]", "row": 0}, "row: Unexpected keyword"),
    "later part": ("pull_back", {"vector": "tc0[3]", "through": "attn1[0]"}, "writes nothing"),
    "own layer": ("connections", {"vector": "tc1[3]", "layer": 1}, "writes nothing"),
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


def test_restricted_circuits_hide_the_features_of_layer_0(any_studies, any_direct):
    for search in ({}, {"n_paths": 300, "components": ["feature", "mlp", "head", "error"]}):
        for restricted, study in any_studies.items():
            found = study.ask("circuit", **any_direct.place, sign="both", **search)
            kinds = {(path["kind"], path["layer"]) for path in found}
            assert (("feature", 0) in kinds) != restricted
            assert not restricted or ("mlp", 0) in kinds


def test_restricted_circuits_add_the_features_of_layer_0_up(any_studies, any_direct):
    local = any_direct.local()
    target = feature_target(local, 1, any_direct.unit, any_direct.place["position"])
    parts = contributions(local, target.vectors)
    of_layer_0 = (parts.columns.kind == NodeKind.FEATURE.code) & (parts.columns.layer == 0)
    asked = {**any_direct.place, "sign": "both"}
    found = any_studies[True].ask("circuit", **asked, iterations=1, n_paths=1000)
    node = f"mlp0@{any_direct.place['position']}"
    (together,) = [path for path in found if path["node"] == node]
    assert together["attribution"] == close(parts.values[0, of_layer_0].sum().item())
    # The rest of the circuit is whole: a node's attribution is the sum over its causes.
    graph = build_graph(paths_of_record(any_studies[True].ask("circuit", **asked)))
    for node in graph:
        causes = [data["path_attribution"] for *_, data in graph.in_edges(node, data=True)]
        if causes:
            assert sum(causes) == pytest.approx(graph.nodes[node]["attribution"], abs=2e-4)


def test_restricted_studies_hide_prompts_on_layer_0(any_studies, any_direct):
    for question, place in (("activations", {"row": 0}), ("circuit", any_direct.place)):
        for feature in ("tc0[0]", " tc0[0] ", "tc00[5]"):
            with pytest.raises(RefusedError, match="a restricted study hides what prompts make"):
                any_studies[True].ask(question, **place, feature=feature)


def test_a_study_that_cannot_begin_says_why(tmp_path):
    def refuse(message, feature="tc1[3]", *, restricted=False):
        with pytest.raises(UserError, match=message):
            BlindStudy("llama", feature=feature, restricted=restricted, transcript=path)

    path = tmp_path / "transcript.json"
    refuse("layer 2 has no transcoder", "tc2[3]")
    refuse("a restricted study hides what prompts make of layer 0", "tc0[3]", restricted=True)
    path.write_text("[]")
    refuse("this transcript exists already and stays")
    path.unlink()
    settings = yaml.safe_load(Path("config/llama.yaml").read_text())
    del settings["interpretability"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        Path("config").mkdir()
        Path("config/llama.yaml").write_text(yaml.safe_dump(settings))
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
    return path, study.reveal(HYPOTHESIS, context=3), study


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
    for example in sealed[1].examples.itertuples():
        tokens, at = direct.text.rows[example.row].tolist(), example.position
        words = [f"w{token - 2}" if token else "<|endoftext|>" for token in tokens]
        before, after = " ".join(words[max(at - 3, 0) : at]), " ".join(words[at + 1 : at + 4])
        assert example.text == f"{before}⟦{words[at]}⟧{after}"


def test_after_the_seal_nothing_is_answered_or_written(sealed):
    path, _, study = sealed
    kept = path.read_bytes()
    for question, asked in (
        ("examples", {}),
        ("reveal", {"hypothesis": "Something else, now that I have seen it."}),
    ):
        with pytest.raises(RefusedError, match="the study is sealed"):
            study.ask(question, **asked)
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


def rechained(entries):
    """With every digest computed anew, as a forger would."""
    previous = "0" * 64
    for entry in entries:
        entry["previous"] = previous
        del entry["digest"]
        previous = entry["digest"] = digest(entry)
    return entries


def changed(entries, number, **values):
    entries[number] |= values
    return entries


TAMPERED: dict[str, tuple[Callable[[list[Any]], Any], str]] = {
    "hypothesis": (
        lambda found: changed(found, 4, arguments={"hypothesis": "I knew."}), "entry 4: expected",
    ),
    "dropped": (lambda found: found[:2] + found[3:], "entry 2: expected the entry"),
    "reordered": (lambda found: [found[0], found[2], found[1], *found[3:]], "entry 1: expected"),
    "truncated": (lambda found: found[:-1], "expected an accepted hypothesis"),
    "gone on": (lambda found: rechained([*found, {**found[1]}]), "expected an accepted"),
}  # fmt: skip


@pytest.mark.parametrize("case", list(TAMPERED))
def test_tampered_transcripts_are_found_out(sealed, tmp_path, case):
    tamper, message = TAMPERED[case]
    copied = tmp_path / "transcript.json"
    copied.write_text(json.dumps(tamper(json.loads(sealed[0].read_text()))))
    with pytest.raises(UserError, match=re.escape(f"{copied}: ") + f".*{message}"):
        verify_transcript(copied)


def test_a_forged_transcript_has_another_seal(sealed, tmp_path):
    forged = tmp_path / "transcript.json"
    entries = changed(json.loads(sealed[0].read_text()), 2, question="examples")
    forged.write_text(json.dumps(rechained(entries)))
    assert verify_transcript(forged)[-1]["digest"] != sealed[1].seal
