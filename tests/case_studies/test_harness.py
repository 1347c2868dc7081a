"""A blind study answers right, and no token leaves before the hypothesis is on record."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pytest
import torch
import yaml

from helpers_circuits import plain, plain_pass, without_weight
from transcoders.case_studies import study_server
from transcoders.case_studies import transcript as transcripts
from transcoders.case_studies.harness import BlindStudy
from transcoders.case_studies.study_server import RefusedError, StudyServer, layer_0_together
from transcoders.case_studies.transcript import digest, verify_transcript
from transcoders.circuits import ReplacementModel, Tracer
from transcoders.circuits.export import paths_of_record, paths_record
from transcoders.circuits.graph import build_graph
from transcoders.circuits.invariant import connections, de_embeddings, direct_logits, through_head
from transcoders.circuits.notation import NodeKind
from transcoders.circuits.paths import Search, find_paths
from transcoders.circuits.replacement import LocalReplacementModel
from transcoders.circuits.vectors import contributions, feature_target
from transcoders.errors import UserError
from transcoders.interpretability.gather import Observed, Text, load_observed, load_text
from transcoders.layout import Layout

TOKEN = re.compile(r"\bw\d+\b|endoftext|unk")
"""What the tokens of the tiny models look like."""
HYPOTHESIS = "Fires after w7, whatever follows."


class Direct(NamedTuple):
    """The same things, held by the tests themselves."""

    scale: str
    replacement: ReplacementModel
    tokenizer: Any
    text: Text
    observed: Observed
    unit: int
    """Of the feature of layer 1 that is studied: one with all the examples it can have."""

    @property
    def feature(self) -> str:
        return f"tc1[{self.unit}]"

    @property
    def examples(self) -> pd.DataFrame:
        return self.observed.examples[self.observed.examples["feature"] == self.unit]

    @property
    def place(self) -> dict[str, int]:
        """Row and position of the best example that has a few tokens before it."""
        late = self.examples[self.examples["position"] >= 5].iloc[0]
        return {"row": int(late["row"]), "position": int(late["position"])}

    def local(self) -> LocalReplacementModel:
        tokens = self.text.rows[self.place["row"], : self.place["position"] + 1]
        return self.replacement.freeze(tokens.long())

    def server(self, path: Path, *, restricted: bool = False) -> StudyServer:
        return StudyServer(
            self.scale, self.feature, restricted=restricted, transcript=path, device="cpu"
        )


@pytest.fixture(scope="module")
def load(repository: Path) -> Callable[[str], Direct]:
    def load(scale: str) -> Direct:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(repository)
            tracer, folder = Tracer.load(scale, "tiny-llama"), Layout(scale).observed
            observed = load_observed(folder, "tiny-llama_layer1_transcoder_l1-0.5")
            late = observed.examples[observed.examples["position"] >= 5]
            unit = int(late.groupby("feature").size().idxmax())
            return Direct(
                scale, tracer.replacement, tracer.tokenizer, load_text(folder), observed, unit
            )

    return load


@pytest.fixture(scope="module", params=["gpt2", "gpt-neox", "llama"])
def any_direct(request: pytest.FixtureRequest, load: Callable[[str], Direct]) -> Direct:
    return load(request.param)


@pytest.fixture(scope="module")
def any_servers(
    any_direct: Direct, repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[bool, StudyServer]:
    """Of every architecture; by whether the study is restricted."""
    folder = tmp_path_factory.mktemp("servers")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(repository)
        return {
            restricted: any_direct.server(folder / f"{restricted}.json", restricted=restricted)
            for restricted in (False, True)
        }


@pytest.fixture(scope="module")
def direct(load: Callable[[str], Direct]) -> Direct:
    return load("gpt2")


@pytest.fixture
def server(direct: Direct, tmp_path: Path) -> StudyServer:
    return direct.server(tmp_path / "transcript.json")


def close(value: Any) -> Any:
    """Equal but for the rounding of answers and of sums."""
    return pytest.approx(value, rel=2e-5, abs=1e-5)


def named(best: Any, name: Callable[[int], str]) -> list[Any]:
    pairs = zip(best.indices[0].tolist(), best.values[0].tolist(), strict=True)
    return [[name(number), close(value)] for number, value in pairs]


# What is answered.


def test_examples_and_facts_are_those_that_were_gathered(
    any_servers: dict[bool, StudyServer], any_direct: Direct
) -> None:
    found = any_servers[False].ask("examples")
    expected = any_direct.examples.drop(columns="feature").to_dict("records")
    assert found == [{**row, "activation": close(row["activation"])} for row in expected]
    assert len(found) >= 6 and any_servers[True].ask("examples") == found
    of_feature = any_direct.observed.features.loc[any_direct.unit]
    assert any_servers[True].facts == {
        "feature": any_direct.feature, "restricted": True, "n_rows": 16, "row_length": 10,
        "dictionary": "tiny-llama_layer1_transcoder_l1-0.5", "first_position": 1,
        "layers": [0, 1], "n_heads": 2,
        **{name: close(of_feature[name]) for name in ("frequency", "mean", "largest")},
    }  # fmt: skip


def test_activations_are_the_transcoders(
    any_servers: dict[bool, StudyServer], any_direct: Direct
) -> None:
    row = any_direct.place["row"]
    for layer, unit in ((1, any_direct.unit), (0, 7)):
        norm = plain(any_direct.replacement.model).blocks[layer].norm_2
        tokens = any_direct.text.rows[row].long()
        stream = plain_pass(any_direct.replacement.model, tokens).before_mlp[layer]
        z = any_direct.replacement.transcoders[layer].encode(without_weight(norm, stream))[:, unit]
        expected = [[at, close(value)] for at, value in enumerate(z.tolist())][1:]
        asked = {"row": row, "feature": f"tc{layer}[{unit}]"}
        assert any_servers[False].ask("activations", **asked) == expected
    assert any_servers[True].ask("activations", row=row)[any_direct.place["position"] - 1][1] > 0


@pytest.mark.parametrize(
    ("arguments", "search"),
    [
        ({}, Search()),
        ({"n_paths": 3, "iterations": 2, "heads": None}, Search(n_paths=3, iterations=2)),
        (
            {"components": ["feature", "head", "error"], "layers": [0], "sign": "both"},
            Search(components=["feature", "head", "error"], layers=[0], sign="both"),
        ),
        ({"heads": ["attn1[0]", "attn0[1]"]}, Search(heads=[(1, 0), (0, 1)])),
    ],
)
def test_circuits_are_those_of_the_text_up_to_the_place(
    any_servers: dict[bool, StudyServer],
    any_direct: Direct,
    arguments: dict[str, Any],
    search: Search,
) -> None:
    local = any_direct.local()
    target = feature_target(local, 1, any_direct.unit, any_direct.place["position"])
    expected = find_paths(local, target, search)
    found = any_servers[False].ask("circuit", **any_direct.place, **arguments)
    assert len(found) == len(expected) > 3
    for path, wanted in zip(found, paths_record(expected), strict=True):
        numbers = ("attribution", "activation", "bias", "error")
        assert path == wanted | {name: close(wanted[name]) for name in numbers}


@pytest.mark.parametrize("restricted", [False, True])
@pytest.mark.parametrize("largest", [True, False])
def test_what_weights_say(
    any_servers: dict[bool, StudyServer], any_direct: Direct, restricted: bool, largest: bool
) -> None:
    server, circuit, name = any_servers[restricted], any_direct.replacement, any_direct.feature
    asked = {"k": 4, "largest": largest}
    one, four = torch.tensor([any_direct.unit]), torch.tensor([4])
    reads, of_layer_0 = circuit.encoder_vectors(1, one), circuit.encoder_vectors(0, four)
    pulled = through_head(circuit, reads, 0, 1)
    writes = circuit.transcoders[0].W_dec[4]
    vectors = {
        name: reads,
        f"{name} <- attn0[1]": pulled,
        f" {name}<-tc0[4]<-attn0[0]": through_head(
            circuit, (reads @ writes) * of_layer_0, 0, 0
        ),
        "tc0[4]": of_layer_0,
    }  # fmt: skip
    if circuit.is_parallel:  # there a block's head does not feed its own MLP
        with pytest.raises(RefusedError, match="writes nothing that is read there"):
            server.ask("de_embedding", vector=vectors.popitem()[0] + " <- attn0[0]")
        del vectors[f" {name}<-tc0[4]<-attn0[0]"]

    def word(token: int) -> str:
        return any_direct.tokenizer.decode([token])

    for vector, expected in vectors.items():
        best = de_embeddings(circuit, expected, 4, largest=largest)
        found = server.ask("de_embedding", vector=vector, **asked)
        assert [list(pair) for pair in found] == named(best, word)
    best = direct_logits(circuit, writes[None], 4, largest=largest)
    found = server.ask("direct_logits", feature="tc0[4]", **asked)
    assert [list(pair) for pair in found] == named(best, word)
    best = connections(circuit, 0, 1, one, 4, largest=largest)
    found = server.ask("connections", vector=name, layer=0, **asked)
    assert [list(pair) for pair in found] == named(best, lambda unit: f"tc0[{unit}]")
    once = server.ask("pull_back", vector=name, through=" attn0[0]")
    assert once == f"{name} <- attn0[0]"


# What is refused.

REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "tokens": ("tokens", {"row": 0}, "a blind study does not answer this"),
    "a private method": ("_row", {"row": 0}, "does not answer"),
    "silent texts": ("silent_texts", {}, "does not answer"),
    "a dunder": ("__getattribute__", {"name": "_rows"}, "does not answer"),
    "opening again": ("open", {"restricted": False}, "does not answer"),
    "logit as target": ("circuit", {"feature": "logit[w1]@-1"}, "expected a feature by its name"),
    "another option": ("circuit", {"target": "tc1[3]"}, "target: a search has no such option"),
    "top feature": ("circuit", {"feature": "tc1[top]"}, "expected a feature by its name"),
    "no transcoder": ("circuit", {"feature": "tc2[0]"}, r"no such feature; there are tc0\[0\] to"),
    "beyond": ("activations", {"row": 0, "feature": "tc1[128]"}, "no such feature"),
    "unknown head": ("circuit", {"heads": ["w1"]}, "expected a layer and head"),
    "row as text": ("circuit", {"row": "0"}, "row: Input should be a valid integer"),
    "negative row": ("circuit", {"row": -1}, "row: Input should be greater than or equal to 0"),
    "no row": ("activations", {}, "row: Missing required argument"),
    "row beyond": ("activations", {"row": 16}, "row 16: expected one from 0 to 15"),
    "position beyond": ("circuit", {"position": 10}, "position 10: expected one below 10"),
    "position of BOS": ("circuit", {"position": 0}, "no transcoder was trained on token 0"),
    "k of none": ("de_embedding", {"vector": "tc1[3]", "k": 0}, "k: Input should be greater"),
    "vector of a prompt": ("de_embedding", {"vector": "tc1[3]@4"}, "by its name alone"),
    "its pull-back": ("de_embedding", {"vector": "tc1[3] <- attn0[0]@2"}, "a layer and head"),
    "embedding": ("de_embedding", {"vector": "tc1[3] <- embed@4"}, "by its name alone"),
    "raw vector": ("de_embedding", {"vector": [0.1] * 32}, "vector: Input should be a valid str"),
    "vector and row": ("de_embedding", {"vector": "tc1[3]", "row": 0}, "row: Unexpected keyword"),
    "later part": ("pull_back", {"vector": "tc0[3]", "through": "attn1[0]"}, "writes nothing"),
    "own layer": ("connections", {"vector": "tc1[3]", "layer": 1}, "writes nothing"),
    "head beyond": ("pull_back", {"vector": "tc1[3]", "through": "attn1[2]"}, "head below 2"),
    "blank hypothesis": ("reveal", {"hypothesis": " --\n"}, "expected a hypothesis in words"),
    "no hypothesis": ("reveal", {}, "hypothesis: Missing required argument"),
}  # fmt: skip


def test_refusals_say_why_and_are_recorded(
    server: StudyServer, tmp_path: Path, direct: Direct
) -> None:
    for case, (question, arguments, message) in REFUSED.items():
        asked = (direct.place if question == "circuit" else {}) | arguments
        with pytest.raises(RefusedError, match=message) as caught:
            server.ask(question, **asked)
        last = json.loads((tmp_path / "transcript.json").read_text())[-1]
        assert (last["question"], last["arguments"]) == (question, asked), case
        assert (last["refused"], last["answer"]) == (str(caught.value), None)
    assert len(json.loads((tmp_path / "transcript.json").read_text())) == 1 + len(REFUSED)


def test_a_failing_server_says_no_more_than_the_kind_of_failure(
    server: StudyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise KeyError("w5 stands there")

    monkeypatch.setattr(study_server, "paths_record", fail)
    monkeypatch.setattr(StudyServer, "examples", fail)
    with pytest.raises(RefusedError, match=r"^examples: failed with KeyError$"):
        server.ask("examples")
    assert "w5" not in (tmp_path / "transcript.json").read_text()


def test_a_servers_process_is_silent() -> None:
    """Even if it prints, warns and crashes."""
    script = """
import sys
from transcoders.case_studies import study_server
class Chatterer:
    facts = {"feature": "tc1[3]"}
    def __init__(self, *arguments, **options):
        print("loading")
    def ask(self, question, /, **arguments):
        print("heard: w5")
        print("heard: w5", file=sys.stderr)
        raise KeyError("w5")
study_server.StudyServer = Chatterer
study_server.main()
"""
    found = subprocess.run(
        [sys.executable, "-c", script, '["gpt2", "tc1[3]", false, "never.json"]'],
        input='[1, "examples", {}]\n',
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 1
    assert json.loads(found.stdout) == [0, {"feature": "tc1[3]"}, None]
    assert "w5" not in found.stdout + found.stderr


# The restricted variant.


@pytest.mark.parametrize(
    "search",
    [
        {},
        {"layers": [0], "components": ["feature", "head", "mlp"]},
        {"n_paths": 300, "components": ["feature", "mlp", "head", "error"]},
    ],
)
def test_restricted_circuits_hide_the_features_of_layer_0(
    any_servers: dict[bool, StudyServer], any_direct: Direct, search: dict[str, Any]
) -> None:
    for restricted, server in any_servers.items():
        found = server.ask("circuit", **any_direct.place, sign="both", **search)
        kinds = {(path["kind"], path["layer"]) for path in found}
        assert (("feature", 0) in kinds) != restricted
        assert not restricted or ("mlp", 0) in kinds


def test_restricted_circuits_add_the_features_of_layer_0_up(
    any_servers: dict[bool, StudyServer], any_direct: Direct
) -> None:
    local = any_direct.local()
    target = feature_target(local, 1, any_direct.unit, any_direct.place["position"])
    parts = contributions(local, target.vectors)
    of_layer_0 = (parts.columns.kind == NodeKind.FEATURE.code) & (parts.columns.layer == 0)
    asked = {**any_direct.place, "sign": "both"}
    found = any_servers[True].ask("circuit", **asked, iterations=1, n_paths=1000)
    node = f"mlp0@{any_direct.place['position']}"
    (together,) = [path for path in found if path["node"] == node]
    assert together["attribution"] == close(parts.values[0, of_layer_0].sum().item())
    # The rest of the circuit is whole: a node's attribution is the sum over its causes.
    graph = build_graph(paths_of_record(any_servers[True].ask("circuit", **asked)))
    for node in graph:
        causes = [data["path_attribution"] for *_, data in graph.in_edges(node, data=True)]
        if causes:
            assert sum(causes) == pytest.approx(graph.nodes[node]["attribution"], abs=2e-4)


def test_restricted_runs_differ_only_at_layer_0(any_direct: Direct) -> None:
    local = any_direct.local()
    together = layer_0_together(local)
    assert set(together.active.layer.tolist()) == {1}
    assert torch.equal(together.mlp_out[1:], local.mlp_out[1:])
    written = torch.zeros_like(local.mlp_out[0])
    for i in (local.active.layer == 0).nonzero()[:, 0].tolist():
        written[local.active.token[i]] += local.active.z[i] * local.active.decoder[i]
    assert torch.allclose(together.mlp_out[0, 1:], written[1:], atol=1e-5)
    assert torch.equal(together.mlp_out[0, 0], local.mlp_out[0, 0])


@pytest.mark.parametrize("question", ["activations", "circuit"])
def test_restricted_studies_hide_prompts_on_layer_0(
    any_servers: dict[bool, StudyServer], any_direct: Direct, question: str
) -> None:
    place = any_direct.place if question == "circuit" else {"row": 0}
    for feature in ("tc0[0]", " tc0[0] ", "tc00[5]"):
        with pytest.raises(RefusedError, match="a restricted study hides what prompts make"):
            any_servers[True].ask(question, **place, feature=feature)


# A study in a process of its own.


def test_a_study_hands_on_what_its_server_says(
    server: StudyServer, direct: Direct, tmp_path: Path
) -> None:
    path, name, place = tmp_path / "study.json", direct.feature, direct.place
    with BlindStudy("gpt2", feature=name, transcript=path) as study:
        assert study.facts == server.facts
        examples = study.examples()
        assert examples.to_dict("records") == server.ask("examples")
        first = examples.iloc[0]  # NumPy's numbers are numbers, too
        activation = study.activations(first["row"])[first["position"]]
        assert activation == close(first["activation"])
        server.ask("activations", row=int(first["row"]))
        circuit = study.circuit(**place, n_paths=6)
        record = server.ask("circuit", **place, n_paths=6)
        assert paths_record(circuit.paths) == record
        assert list(circuit.graph.edges) == list(build_graph(paths_of_record(record)).edges)
        assert circuit.table(2).count("\n") == 1
        assert study.pull_back(name, "attn0[0]") == server.ask(
            "pull_back", vector=name, through="attn0[0]"
        )
        for question, first_column, asked in (
            ("de_embedding", "token", {"vector": name}),
            ("direct_logits", "token", {"feature": name}),
            ("connections", "feature", {"vector": name, "layer": 0}),
        ):
            table = getattr(study, question)(**asked, k=3)
            assert list(table) == [first_column, "value"]
            assert table.to_numpy().tolist() == server.ask(question, **asked, k=3)
        with pytest.raises(RefusedError, match="tokens: a blind study does not answer this"):
            study.ask("tokens", row=0)
        with pytest.raises(RefusedError):
            server.ask("tokens", row=0)
        # An interrupted question leaves its answer in the pipe; it is not taken for the next one.
        study._asked += 1
        line = json.dumps([study._asked, "examples", {}])
        study._process.stdin.write(line + "\n")
        server.ask("examples")
        assert study.pull_back(name, "tc0[1]") == f"{name} <- tc0[1]"
        server.ask("pull_back", vector=name, through="tc0[1]")
        # The analyst's process holds a pipe and facts, and nothing that was said names a token.
        assert vars(study).keys() == {"_asked", "_process", "facts"}
        assert not TOKEN.search(path.read_text())
        revealed = study.reveal(HYPOTHESIS, context=3)
    assert revealed.examples.to_dict("records") == server.ask(
        "reveal", hypothesis=HYPOTHESIS, context=3
    )["examples"]  # fmt: skip
    # The same questions make the same bytes, whoever asks them.
    assert path.read_bytes() == (tmp_path / "transcript.json").read_bytes()
    assert verify_transcript(path).seal == revealed.seal
    with pytest.raises(UserError, match="its process has ended; open another study"):
        study.examples()


def test_a_study_that_cannot_begin_says_why(
    direct: Direct, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "transcript.json"
    path.write_text("[]")
    with pytest.raises(UserError, match="this transcript exists already and stays"):
        BlindStudy("gpt2", feature="tc1[3]", transcript=path)
    path.unlink()
    for feature, restricted, message in (
        ("tc2[3]", False, "no such feature"),
        ("tc0[3]", True, "a restricted study hides what prompts make of layer 0"),
    ):
        with pytest.raises(UserError, match=message):
            StudyServer(
                "gpt2", feature, restricted=restricted, transcript=path, device="cpu"
            )  # fmt: skip
    settings = yaml.safe_load(Path("config/gpt2.yaml").read_text())
    del settings["interpretability"]
    monkeypatch.chdir(tmp_path)
    Path("config").mkdir()
    Path("config/gpt2.yaml").write_text(yaml.safe_dump(settings))
    with pytest.raises(UserError, match="interpretability: this key is missing"):
        direct.server(path)
    monkeypatch.setattr(sys, "executable", "true")  # a server that is gone at once
    with pytest.raises(UserError, match="its process ended without an answer"):
        BlindStudy("gpt2", feature="tc1[3]", transcript=path)


# The transcript.


@pytest.fixture(scope="module")
def sealed(
    direct: Direct, repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, dict[str, Any], StudyServer]]:
    """A finished study's transcript, and what was revealed."""
    path = tmp_path_factory.mktemp("sealed") / "transcript.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(repository)
        server = direct.server(path)
        server.ask("examples")
        with pytest.raises(RefusedError):
            server.ask("tokens", row=0)
        server.ask("de_embedding", vector=direct.feature)
        yield path, server.ask("reveal", hypothesis=HYPOTHESIS, context=3), server


Sealed = tuple[Path, dict[str, Any], StudyServer]


def test_a_transcript_holds_every_question(sealed: Sealed, direct: Direct) -> None:
    path, revealed, server = sealed
    verified = verify_transcript(path)
    assert verified.hypothesis == HYPOTHESIS
    assert verified.seal == revealed["seal"] == verified.entries[-1]["digest"]
    assert [entry["question"] for entry in verified.entries] == [
        "open", "examples", "tokens", "de_embedding", "reveal",
    ]  # fmt: skip
    first, examples, refused, _, last = verified.entries
    assert first["arguments"].keys() == {"feature", "restricted", "dictionary", "text"}
    assert first["answer"] == digest(server.facts)
    assert examples["answer"] == digest([{**row, "activation": float(f"{row['activation']:.6g}")}
        for row in direct.examples.drop(columns="feature").to_dict("records")])  # fmt: skip
    assert refused["answer"] is None and "does not answer" in refused["refused"]
    assert last["answer"] == digest(revealed["examples"])
    # No tokens, but for the hypothesis.
    assert set(TOKEN.findall(path.read_text())) == {"w7"}


def test_what_is_revealed_is_the_text(sealed: Sealed, direct: Direct) -> None:
    for example in sealed[1]["examples"]:
        tokens, at = direct.text.rows[example["row"]].tolist(), example["position"]
        words = [f"w{token - 2}" if token else "<|endoftext|>" for token in tokens]
        before, after = " ".join(words[max(at - 3, 0) : at]), " ".join(words[at + 1 : at + 4])
        assert example["text"] == f"{before}⟦{words[at]}⟧{after}"


def test_after_the_seal_nothing_is_answered_or_written(sealed: Sealed) -> None:
    path, _, server = sealed
    kept = path.read_bytes()
    for question, asked in (
        ("examples", {}),
        ("reveal", {"hypothesis": "Something else, now that I have seen it."}),
    ):
        with pytest.raises(RefusedError, match="the study is sealed"):
            server.ask(question, **asked)
    assert path.read_bytes() == kept


@pytest.mark.parametrize("question", ["examples", "reveal"])
def test_what_cannot_be_recorded_is_not_answered(
    server: StudyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, question: str
) -> None:
    asked = {"hypothesis": HYPOTHESIS} if question == "reveal" else {}
    path = tmp_path / "transcript.json"
    kept = path.read_bytes()

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(transcripts, "write_json", fail)
        with pytest.raises(OSError, match="No space left on device"):
            server.ask(question, **asked)
    assert path.read_bytes() == kept
    assert server.ask(question, **asked)
    assert [entry["question"] for entry in json.loads(path.read_text())] == ["open", question]


def rechained(entries: list[Any]) -> list[Any]:
    """With every digest computed anew, as a forger would."""
    previous = "0" * 64
    for entry in entries:
        entry["previous"] = previous
        del entry["digest"]
        previous = entry["digest"] = digest(entry)
    return entries


def changed(entries: list[Any], number: int, **values: Any) -> list[Any]:
    entries[number] |= values
    return entries


TAMPERED: dict[str, tuple[Callable[[list[Any]], Any], str]] = {
    "question": (lambda found: changed(found, 2, question="examples"), "entry 2: expected the en"),
    "answer": (lambda found: changed(found, 1, answer="0" * 64), "entry 1: expected the entry"),
    "hypothesis": (
        lambda found: changed(found, 4, arguments={"hypothesis": "I knew."}), "entry 4: expected",
    ),
    "dropped": (lambda found: found[:2] + found[3:], "entry 2: expected the entry"),
    "reordered": (lambda found: [found[0], found[2], found[1], *found[3:]], "entry 1: expected"),
    "put in": (lambda found: [*found[:2], found[1], *found[2:]], "entry 2: expected the entry"),
    "truncated": (lambda found: found[:-1], "entry 3: expected an accepted hypothesis"),
    "gone on": (lambda found: rechained([*found, {**found[1]}]), "entry 4: expected an accepted"),
    "without hypothesis": (
        lambda found: rechained(changed(found, 4, arguments={})), "expected the entries",
    ),
    "no entry": (lambda found: [*found[:2], "x", *found[3:]], "expected the entries"),
    "nothing": (lambda _: [], "expected the entries of a transcript"),
}  # fmt: skip


@pytest.mark.parametrize("case", list(TAMPERED))
def test_tampered_transcripts_are_found_out(sealed: Sealed, tmp_path: Path, case: str) -> None:
    tamper, message = TAMPERED[case]
    copied = tmp_path / "transcript.json"
    copied.write_text(json.dumps(tamper(json.loads(sealed[0].read_text()))))
    with pytest.raises(UserError, match=re.escape(f"{copied}: ") + f".*{message}"):
        verify_transcript(copied)


def test_a_forged_transcript_has_another_seal(sealed: Sealed, tmp_path: Path) -> None:
    forged = tmp_path / "transcript.json"
    entries = changed(json.loads(sealed[0].read_text()), 2, question="examples")
    forged.write_text(json.dumps(rechained(entries)))
    assert verify_transcript(forged).seal != sealed[1]["seal"]
