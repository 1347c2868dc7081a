"""What a blind study answers is right, and no way around it leads to a token."""

import copy
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from torch import Tensor

from helpers_circuits import plain, plain_pass, without_weight
from transcoders.case_studies import harness
from transcoders.case_studies import transcript as transcripts
from transcoders.case_studies.harness import BlindStudy, RefusedError
from transcoders.case_studies.study_server import StudyFiles, StudyServer
from transcoders.case_studies.transcript import digest, verify_transcript
from transcoders.circuits.export import paths_of_record, paths_record
from transcoders.circuits.graph import build_graph
from transcoders.circuits.invariant import (
    best_products,
    connections,
    de_embeddings,
    direct_logits,
    through_head,
)
from transcoders.circuits.notation import NodeKind
from transcoders.circuits.paths import Search, find_paths
from transcoders.circuits.replacement import LocalReplacementModel, ReplacementModel
from transcoders.circuits.vectors import contributions, feature_target
from transcoders.dictionaries import SparseDictionary
from transcoders.errors import UserError
from transcoders.interpretability.gather import Observed, Text, load_observed, load_text
from transcoders.models import load_model, load_tokenizer

REPOSITORY = Path(__file__).resolve().parents[2]
ARCHITECTURES = ["gpt2", "gpt_neox", "llama"]
TOKEN = re.compile(r"\bw\d+\b|endoftext|unk")
"""What the tokens of the tiny models look like."""
HYPOTHESIS = "Fires after w7, whatever follows."


class Direct(NamedTuple):
    """The same things, held by the tests themselves."""

    circuit: ReplacementModel
    tokenizer: Any
    text: Text
    observed: Observed
    unit: int
    """Of the feature of layer 2 that is studied: one with all the examples it can have."""

    @property
    def feature(self) -> str:
        return f"tc2[{self.unit}]"

    @property
    def examples(self) -> pd.DataFrame:
        return self.observed.examples[self.observed.examples["feature"] == self.unit]

    @property
    def place(self) -> tuple[int, int]:
        """Row and position of the best example that has a few tokens before it."""
        late = self.examples[self.examples["position"] >= 5].iloc[0]
        return int(late["row"]), int(late["position"])

    def local(self) -> LocalReplacementModel:
        row, position = self.place
        return self.circuit.freeze(self.text.rows[row, : position + 1].long())


def load_direct(files: StudyFiles) -> Direct:
    circuit = ReplacementModel(
        load_model(files.model),
        {
            layer: SparseDictionary.from_pretrained(folder)
            for layer, folder in files.transcoders.items()
        },
        first_position=files.first_position,
    )
    observed = load_observed(files.observed, files.transcoders[2].name)
    late = observed.examples[observed.examples["position"] >= 5]
    unit = int(late.groupby("feature").size().idxmax())
    text = load_text(files.observed)
    return Direct(circuit, load_tokenizer(files.model), text, observed, unit)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def any_files(
    request: pytest.FixtureRequest, make_files: Callable[[str], StudyFiles]
) -> StudyFiles:
    return make_files(request.param)


@pytest.fixture(scope="module")
def any_direct(any_files: StudyFiles) -> Direct:
    return load_direct(any_files)


@pytest.fixture(scope="module")
def any_servers(
    any_files: StudyFiles, any_direct: Direct, tmp_path_factory: pytest.TempPathFactory
) -> dict[bool, StudyServer]:
    """Of every architecture, in this process; by whether the study is restricted."""
    folder = tmp_path_factory.mktemp("servers")
    return {
        restricted: StudyServer(
            any_files,
            any_direct.feature,
            restricted=restricted,
            transcript=folder / f"{restricted}.json",
        )
        for restricted in (False, True)
    }


@pytest.fixture(scope="module")
def direct(files: StudyFiles) -> Direct:
    return load_direct(files)


@pytest.fixture
def server(files: StudyFiles, direct: Direct, tmp_path: Path) -> StudyServer:
    """A new one, in this process."""
    path = tmp_path / "transcript.json"
    return StudyServer(files, direct.feature, restricted=False, transcript=path)


@pytest.fixture(scope="module")
def transcript(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("restricted") / "transcript.json"


@pytest.fixture(scope="module")
def study(files: StudyFiles, direct: Direct, transcript: Path) -> Iterator[BlindStudy]:
    """A restricted one with a server in a process of its own, as analysts have it."""
    opened = BlindStudy(files, feature=direct.feature, restricted=True, transcript=transcript)
    with opened as study:
        yield study


def ask(server: StudyServer, question: str, **arguments: Any) -> Any:
    """As a study asks, without a process."""
    line = json.dumps({"number": 3, "question": question, "arguments": arguments})
    reply = json.loads(json.dumps(server.reply(line)))
    assert reply["number"] == 3
    if reply["refused"] is not None:
        assert reply["answer"] is None
        raise RefusedError(reply["refused"])
    return reply["answer"]


def close(value: float) -> Any:
    """Equal but for the rounding of answers and of sums."""
    return pytest.approx(value, rel=2e-5, abs=1e-5)


def environment() -> dict[str, str]:
    """For another process that finds the same modules."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def words(best: Any, tokenizer: Any) -> list[Any]:
    return [
        [tokenizer.decode([token]), close(value)]
        for token, value in zip(best.indices[0].tolist(), best.values[0].tolist(), strict=True)
    ]


# What is answered.


def test_examples_are_those_that_were_gathered(
    any_servers: dict[bool, StudyServer], any_direct: Direct
) -> None:
    found = ask(any_servers[False], "examples")
    assert len(found) >= 6
    assert found == [
        {**row, "activation": close(row["activation"])}
        for row in any_direct.examples.drop(columns="feature").to_dict("records")
    ]
    assert ask(any_servers[True], "examples") == found


def test_activations_are_the_transcoders(
    any_servers: dict[bool, StudyServer], any_direct: Direct
) -> None:
    row, position = any_direct.place
    tokens = any_direct.text.rows[row]
    for layer, unit in ((2, any_direct.unit), (0, 7)):
        norm = plain(any_direct.circuit.model).blocks[layer].norm_2
        stream = plain_pass(any_direct.circuit.model, tokens.long()).before_mlp[layer]
        mlp_in = without_weight(norm, stream)
        z = any_direct.circuit.transcoders[layer].encode(mlp_in)[:, unit].tolist()
        expected = [[at, close(value)] for at, value in enumerate(z)]
        asked = {"row": row, "feature": f"tc{layer}[{unit}]"}
        assert ask(any_servers[False], "activations", **asked) == expected[1:]
        assert ask(any_servers[False], "activations", **asked, start=0) == expected[1:]
        assert ask(any_servers[False], "activations", **asked, start=3, stop=6) == expected[3:6]
    of_studied = ask(any_servers[True], "activations", row=row)
    assert of_studied[position - 1][1] > 0
    peak = any_direct.examples.query("row == @row and position == @position")["activation"].iloc[0]
    assert of_studied[position - 1] == [position, close(peak)]


@pytest.mark.parametrize(
    ("arguments", "search"),
    [
        ({}, Search()),
        ({"n_paths": 3, "iterations": 2}, Search(n_paths=3, iterations=2)),
        ({"sign": "both", "exclude_bos": True}, Search(sign="both", exclude_bos=True)),
        (
            {"components": ["feature", "head", "error"], "layers": [0, 1], "tokens": [2, 3, -1]},
            Search(components=["feature", "head", "error"], layers=[0, 1], tokens=[2, 3, -1]),
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
    row, position = any_direct.place
    local = any_direct.local()
    target = feature_target(local, 2, any_direct.unit, position)
    expected = find_paths(local, target, search)
    found = ask(any_servers[False], "circuit", row=row, position=position, **arguments)
    assert len(found) == len(expected) > 3
    for path, wanted in zip(found, paths_record(expected), strict=True):
        numbers = ("attribution", "activation", "bias", "error")
        assert path == wanted | {name: close(wanted[name]) for name in numbers}


def test_what_follows_the_place_makes_no_difference(direct: Direct) -> None:
    row, position = direct.place
    whole = direct.circuit.freeze(direct.text.rows[row].long())
    for local in (whole, direct.local()):
        target = feature_target(local, 2, direct.unit, position)
        first, *_ = paths = find_paths(local, target, Search())
        if local is whole:
            attributions = [path.attribution for path in paths]
    assert [path.attribution for path in paths] == close(attributions)
    assert first.node.token == position < direct.text.rows.shape[1] - 1


def test_circuits_of_other_features(
    any_servers: dict[bool, StudyServer], any_direct: Direct
) -> None:
    row, position = any_direct.place
    local = any_direct.local()
    here = (local.active.layer == 0) & (local.active.token == position)
    unit = int(local.active.unit[here][0])
    paths = find_paths(local, feature_target(local, 0, unit, position), Search())
    asked = {"row": row, "position": position, "feature": f"tc0[{unit}]"}
    found = ask(any_servers[False], "circuit", **asked)
    assert [path["node"] for path in found] == [str(path.node) for path in paths]
    assert [path["attribution"] for path in found] == close([path.attribution for path in paths])


@pytest.mark.parametrize("restricted", [False, True])
@pytest.mark.parametrize("largest", [True, False])
def test_what_weights_say(
    any_servers: dict[bool, StudyServer], any_direct: Direct, restricted: bool, largest: bool
) -> None:
    server, circuit, name = any_servers[restricted], any_direct.circuit, any_direct.feature
    asked = {"k": 4, "largest": largest}
    one, four = torch.tensor([any_direct.unit]), torch.tensor([4])
    reads = circuit.encoder_vectors(2, one)
    pulled = through_head(circuit, reads, 1, 1)
    W_dec, of_layer_0 = circuit.transcoders[0].W_dec, circuit.encoder_vectors(0, four)
    vectors = {
        name: reads,
        f"{name} <- attn1[1]": pulled,
        f"{name}<-attn1[1]<-attn0[0]": through_head(circuit, pulled, 0, 0),
        f"{name} <- tc0[4]": (reads @ W_dec[4]) * of_layer_0,
        f" {name} <- attn1[1] <- tc0[4] ": (pulled @ W_dec[4]) * of_layer_0,
        "tc0[4]": of_layer_0,
    }
    for vector, expected in vectors.items():
        best = de_embeddings(circuit, expected, 4, largest=largest)
        found = ask(server, "de_embedding", vector=vector, **asked)
        assert found == words(best, any_direct.tokenizer)
    for layer, unit in ((2, any_direct.unit), (0, 4)):
        writes = circuit.transcoders[layer].W_dec[unit][None]
        best = direct_logits(circuit, writes, 4, largest=largest)
        found = ask(server, "direct_logits", feature=f"tc{layer}[{unit}]", **asked)
        assert found == words(best, any_direct.tokenizer)
    for vector, head in ((name, None), (f"{name} <- attn1[1]", (1, 1))):
        best = connections(circuit, 0, 2, one, 4, head=head, largest=largest)
        expected = [
            [f"tc0[{unit}]", close(value)]
            for unit, value in zip(best.indices[0].tolist(), best.values[0].tolist(), strict=True)
        ]
        assert ask(server, "connections", vector=vector, layer=0, **asked) == expected
    twice = through_head(circuit, pulled, 0, 0)
    assert not torch.allclose(best_products(twice, W_dec, 1).values, best.values[:, :1])


def test_pull_backs_are_names(any_servers: dict[bool, StudyServer], any_direct: Direct) -> None:
    name = any_direct.feature
    once = ask(any_servers[True], "pull_back", vector=name, through=" attn1[0]")
    assert once == f"{name} <- attn1[0]"
    twice = ask(any_servers[True], "pull_back", vector=once, through="tc0[3]")
    assert twice == f"{name} <- attn1[0] <- tc0[3]"


def test_heads_of_a_parallel_block_do_not_feed_its_mlp(
    any_servers: dict[bool, StudyServer], any_direct: Direct
) -> None:
    asked = {"vector": any_direct.feature, "through": "attn2[0]"}
    if any_direct.circuit.is_parallel:
        with pytest.raises(RefusedError, match="writes nothing that is read there"):
            ask(any_servers[False], "pull_back", **asked)
    else:
        assert ask(any_servers[False], "pull_back", **asked) == f"{any_direct.feature} <- attn2[0]"


QUESTIONS: dict[str, Callable[[BlindStudy, int, int, str], Any]] = {
    "examples": lambda study, *_: study.examples(),
    "activations": lambda study, row, *_: study.activations(row, start=2),
    "circuit": lambda study, row, position, _: study.circuit(row, position, n_paths=6),
    "pull_back": lambda study, *place: study.pull_back(place[2], "attn1[0]"),
    "de_embedding": lambda study, *place: study.de_embedding(f"{place[2]} <- attn1[0]", k=3),
    "direct_logits": lambda study, *place: study.direct_logits(place[2], k=3),
    "connections": lambda study, *place: study.connections(place[2], 0, k=3),
}


def test_a_study_hands_on_what_its_keeper_says(
    study: BlindStudy, files: StudyFiles, direct: Direct, tmp_path: Path
) -> None:
    path = tmp_path / "transcript.json"
    server = StudyServer(files, direct.feature, restricted=True, transcript=path)
    assert list(QUESTIONS) == [name for name in server.questions if name != "reveal"]
    place = (*direct.place, direct.feature)
    row, position, feature = place
    found = {name: question(study, *place) for name, question in QUESTIONS.items()}
    assert found["examples"].to_dict("records") == ask(server, "examples")
    assert [*found["activations"].items()] == [
        tuple(pair) for pair in ask(server, "activations", row=row, start=2)
    ]
    record = ask(server, "circuit", row=row, position=position, n_paths=6)
    assert paths_record(found["circuit"].paths) == record
    graph = build_graph(paths_of_record(record))
    assert dict(found["circuit"].graph.nodes(data=True)) == dict(graph.nodes(data=True))
    assert list(found["circuit"].graph.edges(data=True)) == list(graph.edges(data=True))
    assert found["circuit"].table(2).count("\n") == 1
    assert found["pull_back"] == f"{feature} <- attn1[0]"
    for name, columns, asked in (
        ("de_embedding", ["token", "value"], {"vector": f"{feature} <- attn1[0]"}),
        ("direct_logits", ["token", "value"], {"feature": feature}),
        ("connections", ["feature", "value"], {"vector": feature, "layer": 0}),
    ):
        assert list(found[name].columns) == columns
        assert found[name].values.tolist() == ask(server, name, **asked, k=3)


def test_facts_are_sizes(study: BlindStudy, direct: Direct) -> None:
    of_feature = direct.observed.features.loc[direct.unit]
    assert study.facts == {
        "feature": direct.feature, "restricted": True, "dictionary": "layer2_transcoder",
        "n_rows": 16, "row_length": 10, "first_position": 1, "layers": [0, 2], "n_heads": 2,
        "frequency": close(of_feature["frequency"]), "mean": close(of_feature["mean"]),
        "largest": close(of_feature["largest"]),
    }  # fmt: skip


def test_numbers_of_tables_are_numbers(study: BlindStudy) -> None:
    place = study.examples().iloc[0]
    assert type(place["row"]) is not int
    activation = study.activations(place["row"])[place["position"]]
    assert activation == close(place["activation"])


# What is refused.

LAYER_0_SEARCHES: dict[str, dict[str, Any]] = {
    "all": {"sign": "both"},
    "features": {"sign": "both", "components": ["feature"]},
    "layer 0": {"sign": "both", "layers": [0], "components": ["feature", "head", "mlp"]},
    "one path": {"sign": "both", "n_paths": 1, "components": ["feature", "mlp"], "layers": [0]},
    "many": {"sign": "both", "n_paths": 300, "components": ["feature", "mlp", "head", "error"]},
}

REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "tokens": ("tokens", {"row": 0}, "a blind study does not answer this"),
    "token texts": ("text", {"row": 0}, "does not answer"),
    "decoded rows": ("decode", {"row": 0, "position": 3}, "does not answer"),
    "tokenizer": ("tokenize", {"text": "w1"}, "does not answer"),
    "logits": ("logits", {"row": 0, "position": 3}, "does not answer"),
    "residual stream": ("residual", {"row": 0, "layer": 1}, "does not answer"),
    "mlp inputs": ("mlp_in", {"row": 0, "layer": 1}, "does not answer"),
    "embeddings": ("embedding", {"row": 0, "position": 2}, "does not answer"),
    "a private method": ("_row", {"row": 0}, "does not answer"),
    "an inner method": ("_words", {"best": []}, "does not answer"),
    "a dunder": ("__getattribute__", {"name": "_rows"}, "does not answer"),
    "an attribute": ("facts", {}, "does not answer"),
    "the server's door": ("reply", {"line": "{}"}, "does not answer"),
    "opening again": ("open", {"restricted": False}, "does not answer"),
    "no question": ("", {}, "does not answer"),
    "logit as target": ("circuit", {"feature": "logit[w1]@-1"}, "expected a feature by its name"),
    "another argument": ("circuit", {"target": "logit[w1]@-1"}, "target: Unexpected keyword"),
    "top feature": ("circuit", {"feature": "tc2[top]"}, "expected a feature by its name"),
    "silent layer": ("circuit", {"feature": "tc1[0]"}, r"no such feature; there are tc0\[0\] to"),
    "unknown part": ("circuit", {"components": ["tokens"]}, "components: tokens not known"),
    "unknown token": ("circuit", {"tokens": [99]}, "token 99: expected one from"),
    "unknown head": ("circuit", {"heads": ["w1"]}, "expected a layer and head"),
    "row as text": ("circuit", {"row": "0"}, "row: Input should be a valid integer"),
    "negative row": ("circuit", {"row": -1}, "row: Input should be greater than or equal to 0"),
    "row as truth": ("activations", {"row": True}, "row: Input should be a valid integer"),
    "rows": ("activations", {"row": [0, 1]}, "row: Input should be a valid integer"),
    "no row": ("activations", {}, "row: Missing required argument"),
    "row beyond": ("activations", {"row": 16}, "row 16: expected one from 0 to 15"),
    "position beyond": ("circuit", {"position": 10}, "position 10: expected one below 10"),
    "position of BOS": ("circuit", {"position": 0}, "no transcoder was trained on token 0"),
    "too many": ("activations", {"row": 0, "feature": "tc2[64]"}, r"no such feature"),
    "k of none": ("de_embedding", {"vector": "tc2[3]", "k": 0}, "k: Input should be greater"),
    "vector of a prompt": ("de_embedding", {"vector": "tc2[3]@4"}, "by its name alone"),
    "its pull-back": ("de_embedding", {"vector": "tc2[3] <- attn1[0]@2"}, "a layer and head"),
    "residual": ("de_embedding", {"vector": "resid1@4"}, "by its name alone"),
    "embedding": ("de_embedding", {"vector": "embed@4"}, "by its name alone"),
    "embedding read": ("de_embedding", {"vector": "tc2[3] <- embed@4"}, "by its name alone"),
    "raw vector": ("de_embedding", {"vector": [0.1] * 32}, "vector: Input should be a valid str"),
    "vector and row": ("de_embedding", {"vector": "tc2[3]", "row": 0}, "row: Unexpected keyword"),
    "DLA of a vector": ("direct_logits", {"feature": "tc2[3] <- attn1[0]"}, "by its name alone"),
    "later part": ("pull_back", {"vector": "tc0[3]", "through": "attn1[0]"}, "writes nothing"),
    "own layer": ("connections", {"vector": "tc2[3]", "layer": 2}, "writes nothing"),
    "no transcoder": ("connections", {"vector": "tc2[3]", "layer": 1}, "no such feature"),
    "head beyond": ("pull_back", {"vector": "tc2[3]", "through": "attn1[2]"}, "head below 2"),
    "layer beyond": ("pull_back", {"vector": "tc2[3]", "through": "attn3[0]"}, "layer below 3"),
    "no hypothesis": ("reveal", {}, "hypothesis: Missing required argument"),
    "empty hypothesis": ("reveal", {"hypothesis": ""}, "expected a hypothesis in words"),
    "blank hypothesis": ("reveal", {"hypothesis": " \n\t"}, "expected a hypothesis in words"),
    "invisible hypothesis": ("reveal", {"hypothesis": "\u200b\u2060"}, "a hypothesis in words"),
    "dashes": ("reveal", {"hypothesis": "--- ?"}, "expected a hypothesis in words"),
    "hypothesis as number": ("reveal", {"hypothesis": 3}, "hypothesis: Input should be a valid s"),
    "no context": ("reveal", {"hypothesis": "so", "context": -1}, "context: Input should be gre"),
}  # fmt: skip


@pytest.mark.parametrize("case", list(REFUSED))
def test_refusals_say_why_and_are_recorded(
    study: BlindStudy, transcript: Path, direct: Direct, case: str
) -> None:
    question, asked, message = REFUSED[case]
    if question == "circuit":
        row, position = direct.place
        asked = {"row": row, "position": position, **asked}
    before = len(json.loads(transcript.read_text()))
    with pytest.raises(RefusedError, match=message) as caught:
        study.ask(question, **asked)
    if not TOKEN.search(json.dumps(asked)):
        assert not list(secrets_in(caught.value, direct))
    entries = json.loads(transcript.read_text())
    assert len(entries) == before + 1
    assert entries[-1]["question"] == question
    assert entries[-1]["arguments"] == asked
    assert entries[-1]["refused"] == str(caught.value)
    assert entries[-1]["answer"] is None


def raw(study: BlindStudy, lines: bytes) -> list[str]:
    """Past every check on the analyst's side, onto the pipe."""
    process = study._process
    process.stdin.buffer.write(lines + b"\n")
    process.stdin.buffer.flush()
    return [process.stdout.readline() for _ in range(lines.count(b"\n") + 1)]


class Impostor(BlindStudy):
    """Asks something else than it is told to."""

    __slots__ = ("extra",)

    def __init__(self, study: BlindStudy) -> None:
        for name in ("_process", "_facts", "_name"):
            setattr(self, name, getattr(study, name))
        self._facts = {**self._facts, "restricted": False}
        self._asked = study._asked

    def ask(self, _: str, /, **arguments: Any) -> Any:
        return super().ask("tokens", **arguments)


def patched(study: BlindStudy) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BlindStudy, "examples", lambda self: self.ask("_rows"))
        return study.examples()


ATTEMPTS: dict[str, Callable[[BlindStudy], Any]] = {
    **{f"attribute {name}": lambda study, name=name: getattr(study, name) for name in (
        "rows", "_rows", "text", "tokens", "_text", "tokenizer", "_tokenizer", "model", "_model",
        "circuit_model", "_circuit", "_server", "server", "run", "_run", "__dict__", "__wrapped__",
        "_BlindStudy__rows", "observed", "_examples", "__getstate__", "__closure__",
    )},
    "vars": vars,
    "dir": lambda study: {name: getattr(study, name, None) for name in dir(study)},
    "slots": lambda study: [getattr(study, name, None) for name in BlindStudy.__slots__],
    "closures": lambda study: [
        getattr(getattr(study, name), "__closure__", None) for name in dir(study)
        if callable(getattr(study, name))
    ],
    "defaults": lambda study: [
        getattr(getattr(study, name), "__defaults__", None) for name in dir(study)
    ],
    "process": lambda study: vars(study._process),
    "command line": lambda study: study._process.args,
    "what the server was started with": lambda study: Path(
        f"/proc/{study._process.pid}/cmdline"
    ).read_text(),
    "pickle": pickle.dumps,
    "pickle 0": lambda study: pickle.dumps(study, protocol=0),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "repr": repr,
    "str": str,
    "format": lambda study: f"{study} {study!r:>80}",
    "facts": lambda study: study.facts,
    "changed facts": lambda study: study.facts.update(restricted=False) or study.ask("tokens"),
    "set attribute": lambda study: setattr(study, "restricted", False),
    "subclass": lambda study: Impostor(study).examples(),
    "another study's facts": lambda study: Impostor(study)._facts,
    "monkeypatch": patched,
    "iteration": list,
    "item": lambda study: study[0],
    "bytes": bytes,
    "a pickle in the pipe": lambda study: raw(study, pickle.dumps(os.getcwd, protocol=0)),
    "no JSON": lambda study: raw(study, b"print(self._rows)"),
    "no text": lambda study: raw(study, b"\xff\xfe\x00"),
    "a list": lambda study: raw(study, b"[1, 2]"),
    "no name": lambda study: raw(study, b'{"number": 0, "question": ["examples"]}'),
    "more keys": lambda study: raw(
        study, b'{"number": 0, "question": "examples", "arguments": {}, "sealed": true}'
    ),
    "deep": lambda study: raw(study, b"[" * 5000),
    "a long number": lambda study: raw(
        study, b'{"number": 0, "question": "x", "arguments": {"n": ' + b"9" * 5000 + b"}}"
    ),
    "no line": lambda study: raw(study, b""),
    "an array as argument": lambda study: study.ask("de_embedding", vector=np.ones(32)),
    "a number as question": lambda study: study.ask(5),
    "self": lambda study: study.ask("activations", row=0, self=0),
}  # fmt: skip


@pytest.mark.parametrize("attempt", list(ATTEMPTS))
def test_no_way_around_leads_to_a_token(study: BlindStudy, direct: Direct, attempt: str) -> None:
    try:
        found = ATTEMPTS[attempt](study)
    except Exception as error:
        found = error
    assert not list(secrets_in(found, direct))
    # And the study goes on: no answer to an attempt is taken for another.
    study._asked += 1
    assert list(study.examples().columns) == [
        "kind", "rank", "row", "position", "activation",
    ]  # fmt: skip


@pytest.mark.parametrize("how", [pickle.dumps, copy.copy, copy.deepcopy])
def test_studies_are_not_copied(study: BlindStudy, how: Callable[[BlindStudy], Any]) -> None:
    with pytest.raises(TypeError, match="cannot be copied or pickled"):
        how(study)


def secrets_in(found: Any, direct: Direct) -> Iterator[Any]:  # noqa: PLR0912
    """Token texts, or three token ids in a row, in anything that can be got at from there."""
    ids = [row.tolist() for row in direct.text.rows]
    triples = {str(row[at : at + 3]) for row in ids for at in range(len(row) - 2)}
    seen: dict[int, Any] = {}
    todo = [found]
    while todo:
        thing = todo.pop()
        if id(thing) in seen or isinstance(thing, types.ModuleType | type | types.CodeType):
            continue
        seen[id(thing)] = thing  # kept, so that its id stays its own
        match thing:
            case str():
                if TOKEN.search(thing):
                    yield thing
                todo += [tuple(map(int, re.findall(r"\d+", thing)))] if "[" in thing else []
            case bytes():
                todo.append(thing.decode("latin-1"))
            case Tensor():
                yield thing
            case dict():
                todo += [*thing.keys(), *thing.values()]
            case list() | tuple() | set():
                parts = list(thing)
                todo += parts
                if any(str(parts[at : at + 3]) in triples for at in range(len(parts) - 2)):
                    yield thing
            case BaseException():
                todo += [thing.args, thing.__cause__, thing.__context__, vars(thing)]
                trace = thing.__traceback__
                while trace:
                    if "src/transcoders" in trace.tb_frame.f_code.co_filename:
                        todo.append(dict(trace.tb_frame.f_locals))
                    trace = trace.tb_next
            case types.FunctionType():
                todo += [thing.__closure__, thing.__defaults__, thing.__kwdefaults__]
            case types.MethodType():
                todo += [thing.__func__, thing.__self__]
            case types.CellType():
                todo.append(thing.cell_contents)
            case _:
                names = getattr(type(thing), "__slots__", ())
                todo += [getattr(thing, name, None) for name in names if name != "__weakref__"]
                todo.append(getattr(thing, "__dict__", None))


def test_the_search_for_secrets_finds_them(direct: Direct) -> None:
    ids = direct.text.rows[3].tolist()

    class Holder:
        __slots__ = ("held",)

        def __init__(self, held: Any) -> None:
            self.held = held

        def method(self) -> None: ...

    for held in (
        ids, tuple(ids), str(ids[2:6]), json.dumps({"x": ids}), "of w17", b"w17", direct.text.rows,
        Holder([ids]), Holder(ids).method, {"a": Holder("w3")}, lambda: ids, KeyError("w3"),
    ):  # fmt: skip
        assert list(secrets_in(held, direct))
    with pytest.raises(TypeError) as caught:
        direct.circuit.freeze(ids)  # they are in a frame of the library
    assert list(secrets_in(caught.value, direct))
    assert not list(secrets_in([[1, 2], ids[:2], "tc2[3]@4", Holder(5)], direct))


def test_a_server_that_fails_says_no_more_than_how(server: StudyServer, tmp_path: Path) -> None:
    def fail() -> None:
        raise KeyError("w5 stands there")

    server.questions["examples"] = fail
    with pytest.raises(RefusedError, match=r"^examples: failed with KeyError$"):
        ask(server, "examples")
    assert "w5" not in (tmp_path / "transcript.json").read_text()


def test_a_servers_process_is_silent(files: StudyFiles) -> None:
    """Even if it prints, warns and crashes."""
    script = """
import sys
from transcoders.case_studies import study_server
class Chatterer:
    facts = {"feature": "tc2[3]"}
    def __init__(self, *arguments, **options):
        print("loading")
    def reply(self, line):
        print("heard: w5")
        print("heard: w5", file=sys.stderr)
        raise KeyError("w5")
study_server.StudyServer = Chatterer
study_server.serve()
"""
    opening = {
        "number": 0, "files": files.model_dump(mode="json"), "feature": "tc2[3]",
        "restricted": False, "transcript": "never.json",
    }  # fmt: skip
    found = subprocess.run(
        [sys.executable, "-c", script],
        input=json.dumps(opening) + "\n{}\n",
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 1
    assert json.loads(found.stdout)["answer"] == {"feature": "tc2[3]"}
    assert "w5" not in found.stdout + found.stderr


# The restricted variant.


@pytest.mark.parametrize("name", list(LAYER_0_SEARCHES))
def test_restricted_circuits_hide_the_features_of_layer_0(
    any_servers: dict[bool, StudyServer], any_direct: Direct, name: str
) -> None:
    row, position = any_direct.place
    asked = {"row": row, "position": position, **LAYER_0_SEARCHES[name]}
    for restricted, server in any_servers.items():
        found = ask(server, "circuit", **asked)
        kinds = {(path["kind"], path["layer"]) for path in found}
        assert (("feature", 0) in kinds) != restricted
        if restricted and name != "features":
            assert ("mlp", 0) in kinds
            assert all(path["unit"] == -1 for path in found if path["kind"] == "mlp")
            assert all(path["activation"] == 0 for path in found if path["kind"] == "mlp")


def test_restricted_circuits_add_the_features_of_layer_0_up(
    any_servers: dict[bool, StudyServer], any_direct: Direct
) -> None:
    row, position = any_direct.place
    local = any_direct.local()
    target = feature_target(local, 2, any_direct.unit, position)
    parts = contributions(local, target.vectors)
    of_layer_0 = (parts.columns.kind == NodeKind.FEATURE.code) & (parts.columns.layer == 0)
    expected = parts.values[0, of_layer_0].sum().item()
    asked = {"row": row, "position": position, "sign": "both"}
    found = ask(any_servers[True], "circuit", **asked, iterations=1, n_paths=1000)
    (together,) = [path for path in found if path["node"] == f"mlp0@{position}"]
    assert together["attribution"] == close(expected)
    # However few paths are kept, and whatever else is left out, it is the same.
    alone = ask(any_servers[True], "circuit", **asked, n_paths=1, layers=[0], components=["mlp"])
    assert alone[1]["attribution"] == together["attribution"]
    # What is left is all there: a node's attribution is the sum over its causes.
    graph = build_graph(paths_of_record(ask(any_servers[True], "circuit", **asked)))
    for node in graph:
        causes = [data["path_attribution"] for *_, data in graph.in_edges(node, data=True)]
        if causes:
            assert sum(causes) == pytest.approx(graph.nodes[node]["attribution"], abs=2e-4)


def test_restricted_runs_differ_only_at_layer_0(any_direct: Direct) -> None:
    from transcoders.case_studies.study_server import layer_0_together

    local = any_direct.local()
    together = layer_0_together(local)
    assert set(together.active.layer.tolist()) == {2} != set(local.active.layer.tolist())
    layer_2 = local.active.layer == 2
    assert torch.equal(together.active.unit, local.active.unit[layer_2])
    assert torch.equal(together.active.decoder, local.active.decoder[layer_2])
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
    row, position = any_direct.place
    asked = {"row": row} if question == "activations" else {"row": row, "position": position}
    local = any_direct.local()
    here = (local.active.layer == 0) & (local.active.token == position)
    for feature in (f"tc0[{int(local.active.unit[here][0])}]", "tc0[0]", " tc0[0] ", "tc00[0]"):
        with pytest.raises(RefusedError, match="a restricted study hides what prompts make"):
            ask(any_servers[True], question, **asked, feature=feature)
    silent = next(u for u in range(64) if u not in local.active.unit[here].tolist())
    with pytest.raises(RefusedError, match=r"most active: tc0\["):  # which says why it is hidden
        ask(any_servers[False], "circuit", row=row, position=position, feature=f"tc0[{silent}]")


# Opening, and going wrong.


@pytest.mark.parametrize(
    ("feature", "restricted", "message"),
    [
        ("tc1[3]", False, r"no such feature; there are tc0\[0\] to tc0\[63\], tc2\[0\]"),
        ("tc2[64]", False, "no such feature"),
        ("tc2[3]@4", False, "expected a feature by its name alone"),
        ("tc0[3]", True, "a restricted study hides what prompts make of layer 0"),
    ],
)
def test_features_that_cannot_be_studied(
    files: StudyFiles, tmp_path: Path, feature: str, restricted: bool, message: str
) -> None:
    path = tmp_path / "transcript.json"
    with pytest.raises(UserError, match=message):
        StudyServer(files, feature, restricted=restricted, transcript=path)
    assert list(tmp_path.iterdir()) == []


def test_features_of_layer_0_can_be_studied(files: StudyFiles, tmp_path: Path) -> None:
    server = StudyServer(files, "tc0[3]", restricted=False, transcript=tmp_path / "transcript.json")
    examples = load_observed(files.observed, "layer0_transcoder").examples
    assert len(ask(server, "examples")) == (examples["feature"] == 3).sum() > 0


def test_a_feature_that_is_never_active(files: StudyFiles, tmp_path: Path) -> None:
    observed = shutil.copytree(files.observed, tmp_path / "observed")
    folder = observed / "layer2_transcoder"
    examples = pd.read_parquet(folder / "examples.parquet")
    examples[examples["feature"] != 3].to_parquet(folder / "examples.parquet", index=False)
    features = pd.read_parquet(folder / "features.parquet")
    features.loc[3, "mean"] = float("nan")
    features.to_parquet(folder / "features.parquet", index=False)
    silent = files.model_copy(update={"observed": observed})
    server = StudyServer(
        silent, "tc2[3]", restricted=False, transcript=tmp_path / "transcript.json"
    )
    assert server.facts["mean"] is None
    assert ask(server, "examples") == []
    assert ask(server, "reveal", hypothesis="Never.")["examples"] == []


def test_a_study_that_cannot_begin_says_why(files: StudyFiles, tmp_path: Path) -> None:
    path = tmp_path / "transcript.json"
    path.write_text("[]")
    with pytest.raises(UserError, match="there is a transcript already, and it stays"):
        BlindStudy(files, feature="tc2[3]", transcript=path)
    path.unlink()
    missing = files.model_copy(update={"observed": tmp_path / "nowhere"})
    with pytest.raises(UserError, match=r"text.safetensors: no such file"):
        StudyServer(missing, "tc2[3]", restricted=False, transcript=path)
    assert list(tmp_path.iterdir()) == []


def test_a_scale_is_opened_and_studied(
    tiny_models: dict[str, Path],
    random_dictionary: Callable[..., SparseDictionary],
    random_tokens: Callable[..., Tensor],
    observe_text: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config").mkdir()
    settings = yaml.safe_load((REPOSITORY / "config/smoke.yaml").read_text())
    settings["interpretability"]["rated_site"] = {"model": "tiny-llama", "layer": 1}
    Path("config/mine.yaml").write_text(yaml.safe_dump(settings))
    results = Path("results/mine")
    shutil.copytree(tiny_models["llama"], results / "models/tiny-llama")
    folders = {n: results / f"dictionaries/tiny-llama_layer{n}_transcoder_l1-0.5" for n in (0, 1)}
    for layer, folder in folders.items():
        random_dictionary("transcoder", seed=layer).save_pretrained(folder, {"metadata": {}})
    observed = results / "interpretability/observed"
    observe_text(tiny_models["llama"], folders, random_tokens(6, 8), observed)

    examples = load_observed(observed, folders[1].name).examples
    unit = int(examples["feature"].iloc[0])
    path = tmp_path / "studies/first.json"
    with BlindStudy.open("mine", feature=f"tc1[{unit}]", restricted=True, transcript=path) as study:
        assert study.facts["dictionary"] == "tiny-llama_layer1_transcoder_l1-0.5"
        assert study.facts["layers"] == [0, 1]
        place = study.examples().iloc[0]
        assert study.circuit(place["row"], place["position"]).paths[0].activation == close(
            place["activation"]
        )
        revealed = study.reveal(HYPOTHESIS)
    assert len(revealed.examples) == (examples["feature"] == unit).sum()
    assert verify_transcript(path, seal=revealed.seal).hypothesis == HYPOTHESIS

    assert StudyFiles.of_scale("mine", "tiny-neox").transcoders == {
        1: results / "dictionaries/tiny-neox_layer1_transcoder_l1-0.5"
    }
    del settings["interpretability"]
    Path("config/mine.yaml").write_text(yaml.safe_dump(settings))
    with pytest.raises(UserError, match="interpretability: this key is missing"):
        BlindStudy.open("mine", feature="tc1[0]", transcript=path)


def test_an_interrupted_question_leaves_the_next_ones_right(
    study: BlindStudy, direct: Direct
) -> None:
    row, _ = direct.place
    line = {"number": study._asked, "question": "activations", "arguments": {"row": row}}
    study._asked += 1
    study._process.stdin.write(json.dumps(line) + "\n")  # asked, and never waited for
    assert study.pull_back(direct.feature, "attn1[0]") == f"{direct.feature} <- attn1[0]"
    assert len(study.activations(row)) == 9


def test_a_study_whose_process_ends_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here it is another program: it opens, hears one question, and is gone."""
    nothing = StudyFiles(model=Path(), transcoders={}, observed=Path(), first_position=0)
    monkeypatch.setattr(harness, "START", "")
    with pytest.raises(UserError, match="ended"):
        BlindStudy(nothing, feature="tc2[3]", transcript=Path("never.json"))
    opening = json.dumps({"number": 0, "answer": {}, "refused": None})
    monkeypatch.setattr(harness, "START", f"print({opening!r}, flush=True); input(); input()")
    study = BlindStudy(nothing, feature="tc2[3]", transcript=Path("never.json"))
    with pytest.raises(UserError, match="its process ended without an answer"):
        study.examples()
    study.close()
    with pytest.raises(UserError, match="its process has ended; open another study"):
        study.examples()


def test_a_study_that_is_broken_off_leaves_a_transcript_in_good_order(
    server: StudyServer, files: StudyFiles, direct: Direct, tmp_path: Path
) -> None:
    path = tmp_path / "transcript.json"
    ask(server, "examples")
    assert [path.name for path in tmp_path.iterdir()] == ["transcript.json"]
    assert [entry["question"] for entry in json.loads(path.read_text())] == ["open", "examples"]
    with pytest.raises(UserError, match="without one the transcript is not sealed"):
        verify_transcript(path)
    kept = path.read_bytes()
    with pytest.raises(UserError, match="there is a transcript already, and it stays"):
        StudyServer(files, direct.feature, restricted=False, transcript=path)
    assert path.read_bytes() == kept


# The transcript.


def converse(server: StudyServer, direct: Direct) -> dict[str, Any]:
    """Some questions, one refused, and the end."""
    row, position = direct.place
    ask(server, "examples")
    ask(server, "circuit", row=row, position=position, n_paths=6)
    with pytest.raises(RefusedError):
        ask(server, "tokens", row=row)
    ask(server, "de_embedding", vector=direct.feature)
    return dict(ask(server, "reveal", hypothesis=HYPOTHESIS, context=3))


@pytest.fixture(scope="module")
def sealed(
    files: StudyFiles, direct: Direct, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """A finished study's transcript, and what was revealed."""
    path = tmp_path_factory.mktemp("sealed") / "transcript.json"
    server = StudyServer(files, direct.feature, restricted=False, transcript=path)
    return path, converse(server, direct)


def test_a_transcript_holds_every_question(
    sealed: tuple[Path, dict[str, Any]], direct: Direct
) -> None:
    path, revealed = sealed
    verified = verify_transcript(path, seal=revealed["seal"])
    assert verified.hypothesis == HYPOTHESIS
    assert verified.seal == revealed["seal"] == verified.entries[-1]["digest"]
    assert [entry["question"] for entry in verified.entries] == [
        "open", "examples", "circuit", "tokens", "de_embedding", "reveal",
    ]  # fmt: skip
    first, examples, circuit, refused, *_, last = verified.entries
    assert first["previous"] == "0" * 64
    assert first["arguments"].keys() == {"feature", "restricted", "dictionary", "text"}
    assert first["arguments"]["feature"] == direct.feature
    found = direct.examples.drop(columns="feature").to_dict("records")
    rounded = [{**row, "activation": float(f"{row['activation']:.6g}")} for row in found]
    assert examples["answer"] == digest(rounded)
    row, position = direct.place
    assert circuit["arguments"] == {"row": row, "position": position, "n_paths": 6}
    assert refused["answer"] is None
    assert "does not answer" in refused["refused"]
    assert last["arguments"] == {"hypothesis": HYPOTHESIS, "context": 3}
    assert last["answer"] == digest(revealed["examples"])
    assert [child.name for child in path.parent.iterdir()] == ["transcript.json"]
    # No tokens, but for the hypothesis and no clocks.
    assert set(TOKEN.findall(path.read_text())) == {"w7"}


ANALYST = """
import gc, json, sys
from pathlib import Path
from transcoders.case_studies.harness import BlindStudy, RefusedError
from transcoders.case_studies.study_server import StudyFiles
files, feature, row, position, path, hypothesis = json.loads(sys.argv[1])
study = BlindStudy(StudyFiles.model_validate(files), feature=feature, transcript=Path(path))
study.examples()
study.circuit(row, position, n_paths=6)
for question in ("tokens", "de_embedding"):
    try:
        study.ask(question, **({"row": row} if question == "tokens" else {"vector": feature}))
    except RefusedError as error:
        refused = error
import torch
tensors = [type(thing).__name__ for thing in gc.get_objects() if isinstance(thing, torch.Tensor)]
libraries = [name for name in ("transformers", "tokenizers") if name in sys.modules]
revealed = study.reveal(hypothesis, context=3)
try:
    study.activations(row)
except RefusedError as error:
    after = str(error)
study.close()
print(json.dumps([tensors, libraries, str(refused), after, revealed.seal]))
print(json.dumps(revealed.examples.to_dict("records")))
"""


def test_the_same_study_writes_the_same_bytes(
    sealed: tuple[Path, dict[str, Any]], files: StudyFiles, direct: Direct, tmp_path: Path
) -> None:
    path, _ = sealed
    again = tmp_path / "again.json"
    converse(StudyServer(files, direct.feature, restricted=False, transcript=again), direct)
    assert again.read_bytes() == path.read_bytes()


def test_an_analysts_process_has_no_tensor_and_no_tokenizer(
    sealed: tuple[Path, dict[str, Any]], files: StudyFiles, direct: Direct, tmp_path: Path
) -> None:
    """All of a process that does nothing but a study; and its transcript has the same bytes."""
    path = tmp_path / "transcript.json"
    place = [direct.feature, *direct.place, str(path), HYPOTHESIS]
    found = subprocess.run(
        [sys.executable, "-c", ANALYST, json.dumps([files.model_dump(mode="json"), *place])],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    report, revealed = map(json.loads, found.stdout.splitlines())
    assert report[:2] == [[], []]
    assert report[2].startswith("tokens: a blind study does not answer this")
    assert report[3].startswith("the study is sealed")
    assert report[4] == sealed[1]["seal"] == verify_transcript(path).seal
    assert revealed == sealed[1]["examples"]
    assert path.read_bytes() == sealed[0].read_bytes()


def test_what_is_revealed_is_the_text(sealed: tuple[Path, dict[str, Any]], direct: Direct) -> None:
    _, revealed = sealed
    assert [row["text"] for row in revealed["examples"]] == [
        "{}⟦{}⟧{}".format(
            *(
                " ".join(f"w{token - 2}" if token else "<|endoftext|>" for token in part)
                for part in (
                    tokens[max(at - 3, 0) : at], tokens[at : at + 1], tokens[at + 1 : at + 4]
                )
            )
        )
        for row, at in direct.examples[["row", "position"]].itertuples(index=False)
        for tokens in [direct.text.rows[row].tolist()]
    ]  # fmt: skip


def test_after_the_seal_nothing_is_answered_or_written(
    server: StudyServer, direct: Direct, tmp_path: Path
) -> None:
    converse(server, direct)
    kept = (tmp_path / "transcript.json").read_bytes()
    row, position = direct.place
    for question, asked in (
        ("examples", {}),
        ("circuit", {"row": row, "position": position}),
        ("de_embedding", {"vector": direct.feature}),
        ("reveal", {"hypothesis": "Something else, now that I have seen it."}),
        ("reveal", {"hypothesis": HYPOTHESIS}),
        ("tokens", {"row": row}),
    ):
        with pytest.raises(RefusedError, match="the study is sealed"):
            ask(server, question, **asked)
    assert server.reply("no question")["refused"].startswith("the study is sealed")
    assert (tmp_path / "transcript.json").read_bytes() == kept


def test_a_refused_hypothesis_does_not_seal(server: StudyServer) -> None:
    for hypothesis in ("", "  ", "..."):
        with pytest.raises(RefusedError, match="expected a hypothesis in words"):
            ask(server, "reveal", hypothesis=hypothesis)
    assert ask(server, "examples")
    assert ask(server, "reveal", hypothesis="Ü")["seal"]


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
        with pytest.raises(RefusedError, match=r"not recorded \(No space left on device\), so not"):
            ask(server, question, **asked)
    assert path.read_bytes() == kept
    assert ask(server, question, **asked)
    assert [entry["question"] for entry in json.loads(path.read_text())] == ["open", question]


def test_the_hypothesis_is_on_disk_before_a_text_leaves(
    server: StudyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, seen = tmp_path / "transcript.json", []
    write = transcripts.write_json

    def watch(*arguments: Any) -> None:
        write(*arguments)
        seen.append(verify_transcript(path).hypothesis)

    monkeypatch.setattr(transcripts, "write_json", watch)
    line = {"number": 0, "question": "reveal", "arguments": {"hypothesis": HYPOTHESIS}}
    reply = server.reply(json.dumps(line))
    assert seen == [HYPOTHESIS]
    assert reply["answer"]["seal"] == verify_transcript(path).seal


def test_a_transcript_that_is_tampered_with_during_a_study_is_written_anew(
    server: StudyServer, tmp_path: Path
) -> None:
    path = tmp_path / "transcript.json"
    with pytest.raises(RefusedError):
        ask(server, "tokens", row=0)
    path.write_text("[]")
    ask(server, "reveal", hypothesis=HYPOTHESIS)
    questions = [entry["question"] for entry in verify_transcript(path).entries]
    assert questions == ["open", "tokens", "reveal"]


def rechained(entries: list[Any]) -> list[Any]:
    """With every digest computed anew, as a forger would."""
    previous = "0" * 64
    for number, entry in enumerate(entries):
        entry.update(number=number, previous=previous)
        del entry["digest"]
        previous = entry["digest"] = digest(entry)
    return entries


def changed(entries: list[Any], number: int, **values: Any) -> list[Any]:
    entries[number] |= values
    return entries


def with_own_digest(entries: list[Any], number: int) -> list[Any]:
    entry = entries[number]
    del entry["digest"]
    entry["digest"] = digest(entry)
    return entries


BROKEN = r"entry 3: it was changed"
TAMPERED: dict[str, tuple[Callable[[list[Any]], Any], str]] = {
    "question": (lambda found: changed(found, 3, question="examples"), BROKEN),
    "arguments": (lambda found: changed(found, 3, arguments={"row": 0}), BROKEN),
    "refusal": (lambda found: changed(found, 3, refused=None), BROKEN),
    "answer": (lambda found: changed(found, 3, answer="0" * 64), BROKEN),
    "digest": (lambda found: changed(found, 3, digest="0" * 64), BROKEN),
    "hypothesis": (
        lambda found: changed(found, 5, arguments={"hypothesis": "I knew it.", "context": 3}),
        "entry 5: it was changed",
    ),
    "with its digest": (
        lambda found: with_own_digest(changed(found, 3, question="examples"), 3),
        "entry 4: it does not follow",
    ),
    "dropped": (lambda found: found[:3] + found[4:], "entry 3: it does not follow"),
    "first dropped": (lambda found: found[1:], "entry 0: it does not follow"),
    "reordered": (lambda found: [*found[:2], found[3], found[2], *found[4:]], "entry 2: it does"),
    "put in": (lambda found: [*found[:3], found[2], *found[3:]], "entry 3: it does not follow"),
    "truncated": (lambda found: found[:-1], "entry 4: expected an accepted 'reveal' last"),
    "refused at the end": (lambda found: found[:4], "entry 3: expected an accepted 'reveal'"),
    "only begun": (lambda found: found[:1], "entry 0: expected an accepted 'reveal' last"),
    "gone on": (
        lambda found: rechained([*found, {**found[1]}]), "entry 5: expected an accepted 'reveal'",
    ),
    "revealed twice": (
        lambda found: rechained([*found, {**found[-1]}]), "entry 5: expected an accepted 'rev",
    ),
    "opened twice": (
        lambda found: rechained([found[0], {**found[0]}, *found[1:]]), "entry 1: expected 'open'",
    ),
    "never opened": (lambda found: rechained(found[1:]), "entry 0: expected 'open' first"),
    "forged without words": (
        lambda found: rechained(changed(found, 5, arguments={"hypothesis": " "})),
        "expected a hypothesis, found ' '",
    ),
    "forged without hypothesis": (
        lambda found: rechained(changed(found, 5, arguments={})),
        "expected a hypothesis, found None",
    ),
    "forged with no arguments": (
        lambda found: rechained(changed(found, 5, arguments="I knew it.")),
        "expected a hypothesis, found None",
    ),
    "forged": (
        lambda found: rechained(changed(found, 3, question="examples")), "expected the seal",
    ),
    "another field": (lambda found: changed(found, 3, note="ok"), "entry 3: expected the fields"),
    "a field less": (
        lambda found: [*found[:3], {"number": 3}, *found[4:]], "entry 3: expected the fields",
    ),
    "no entry": (lambda found: [*found[:3], "x", *found[4:]], "entry 3: expected the fields"),
    "nothing": (lambda _: [], "expected the entries of a transcript"),
    "no list": (lambda found: found[0], "expected the entries of a transcript"),
}  # fmt: skip


@pytest.mark.parametrize("case", list(TAMPERED))
def test_tampered_transcripts_are_found_out(
    sealed: tuple[Path, dict[str, Any]], tmp_path: Path, case: str
) -> None:
    path, revealed = sealed
    tamper, message = TAMPERED[case]
    copied = tmp_path / "transcript.json"
    copied.write_text(json.dumps(tamper(json.loads(path.read_text()))))
    with pytest.raises(UserError, match=re.escape(f"{copied}: ") + f".*{message}"):
        verify_transcript(copied, seal=revealed["seal"])


def test_a_forged_transcript_needs_its_seal_to_be_found_out(
    sealed: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    path, revealed = sealed
    forged = tmp_path / "transcript.json"
    entries = changed(json.loads(path.read_text()), 3, question="examples")
    forged.write_text(json.dumps(rechained(entries)))
    assert verify_transcript(forged).seal != revealed["seal"]


def test_half_a_transcript_is_no_transcript(
    sealed: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    cut = tmp_path / "transcript.json"
    cut.write_text(sealed[0].read_text()[:-40])
    with pytest.raises(UserError, match="expected JSON"):
        verify_transcript(cut)
    with pytest.raises(UserError, match="no such file"):
        verify_transcript(tmp_path / "nowhere.json")
