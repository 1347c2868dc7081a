"""A question about what does not exist is refused in one sentence, before any weights are read."""

import json
import shutil
from pathlib import Path

import pytest

from transcoders.circuits import Search, Tracer, attention_score
from transcoders.circuits.questions import Bounds
from transcoders.cli import app
from transcoders.errors import UserError
from transcoders.layout import Layout

PROMPT = "w1 w2 w3 w4"


@pytest.fixture(scope="module")
def without_weights(tmp_path_factory, tiny_models, scale):
    """A run of the smoke scale whose model and transcoders can be described but not loaded."""
    folder = tmp_path_factory.mktemp("run")
    shutil.copytree(Path(__file__).resolve().parents[2] / "config", folder / "config")
    layout = Layout("smoke")
    shutil.copytree(
        tiny_models["llama"], folder / layout.model("tiny-llama"),
        ignore=shutil.ignore_patterns("*.safetensors"),
    )  # fmt: skip
    for entry in scale.circuit_transcoders("tiny-llama"):
        described = folder / layout.dictionary(entry.name) / "cfg.json"
        described.parent.mkdir(parents=True)
        described.write_text(json.dumps({"d_sae": 64}))
    return folder


OPTIONS = {
    "circuit": {"--target": "logit[w5]@-1"},
    "attention": {"--head": "attn1[0]", "--key": "2"},
}


@pytest.fixture
def ask(without_weights, own_settings, monkeypatch):  # noqa: ARG001  (so that none outlast the test)
    """Runs a command, with some of its options changed."""
    monkeypatch.chdir(without_weights)

    def ask(command, changes):
        options = {"--model": "tiny-llama", "--prompt": PROMPT} | OPTIONS[command] | changes
        words = [word for option in options.items() for word in option]
        app([command, "--scale", "smoke", *words], standalone_mode=False)

    return ask


REFUSED: list[tuple[str, dict[str, str], str]] = [
    ("circuit", {"--target": "logit[w5]@9"}, "token 9: expected one from -5 to 4"),
    ("circuit", {"--target": "logit[w5 w6]@-1"}, "'w5 w6' is 2 tokens"),
    ("circuit", {"--target": "tc1[top]@-6"}, "token -6: expected one from -5 to 4"),
    ("circuit", {"--target": "tc1[64]@-1"}, "layer 1 has 64 features"),
    ("circuit", {"--target": "tc2[top]@-1"}, "layer 2 has no transcoder"),
    ("circuit", {"--target": "w5"}, "expected a feature such as"),
    ("circuit", {"--prompt": "<|endoftext|> w1"}, r"expected text without <\|endoftext\|>"),
    ("circuit", {"--prompt": ""}, "prompt: expected some text, found none"),
    ("circuit", {"--prompt": "w1 " * 256}, "prompt: 257 tokens, expected at most 256"),
    ("circuit", {"--paths": "0"}, "expected at least 1 of each, found 0 and 3"),
    ("circuit", {"--component": "heads"}, "components: heads not known"),
    ("circuit", {"--sign": "any"}, "sign: expected one of positive, negative, both"),
    ("circuit", {"--layer": "3"}, "layer 3: expected one from 0 to 2"),
    ("circuit", {"--head": "attn3[0]"}, r"head attn3\[0\]: expected a layer from 0 to 2"),
    ("circuit", {"--head": "tc0[2]"}, r"expected a layer and head such as attn9\[1\]"),
    ("circuit", {"--token": "5"}, "token 5: expected one from -5 to 4"),
    ("circuit", {"--model": "gpt5"}, "no model named 'gpt5'"),
    ("circuit", {"--case": "tiny-feature"}, "--case, or --all-of .* none of the others"),
    ("attention", {"--head": "attn0[2]"}, r"head attn0\[2\]: expected a layer from 0 to 2"),
    ("attention", {"--key": "5"}, "token 5: expected one from -5 to 4"),
    ("attention", {"--query": "1"}, "key 2: expected a token from 0 to 1"),
    ("attention", {"--prompt": ""}, "prompt: expected some text, found none"),
]


@pytest.mark.parametrize(("command", "changes", "message"), REFUSED)
def test_the_command_line_refuses_what_there_is_not(ask, command, changes, message):
    with pytest.raises(UserError, match=message) as refused:
        ask(command, changes)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("command", OPTIONS)
def test_a_question_that_can_be_asked_goes_on_to_the_weights(ask, command):
    with pytest.raises(UserError, match="results/smoke/dictionaries/tiny-llama_layer0"):
        ask(command, {})


def test_the_command_line_answers(ask, monkeypatch, tracer, capsys):
    monkeypatch.setattr(Tracer, "load", lambda *_, **__: tracer)
    ask("attention", {})
    first, *lines = capsys.readouterr().out.splitlines()
    found = attention_score(tracer.freeze(PROMPT), 1, 0, -1, 2)
    assert first.startswith(f"attn1[0] from token 4 to token 2: score {found.score:.3f}, ")
    assert [line.split()[1] for line in lines[1:]] == found.table()["query_part"].tolist()
    for changes, signs in (({}, {True, False}), ({"--sign": "negative"}, {False})):
        ask("circuit", changes)
        lines = capsys.readouterr().out.splitlines()[1:]
        assert {float(line.split()[0]) > 0 for line in lines} == signs


def test_bounds_of_files_are_those_of_what_is_loaded(without_weights, monkeypatch, tracer, scale):
    monkeypatch.chdir(without_weights)
    found, loaded = Bounds.of_scale(scale, "tiny-llama"), tracer.replacement.bounds
    assert found == Bounds(loaded.n_layers, loaded.n_heads, loaded.n_positions, {0: 64, 1: 64})


@pytest.mark.parametrize(
    ("prompt", "target", "search", "message"),
    [
        ("w1 " * 256, "logit[w5]@-1", Search(), "257 tokens, expected at most 256"),
        (PROMPT, "logit[ ]@-1", Search(), "' ' is 0 tokens"),
        (PROMPT, "tc0[top]@0", Search(), "most active: none; no transcoder was trained on token 0"),
        (PROMPT, "logit[w5]@-1", Search(tokens=[5]), "token 5: expected one from -5 to 4"),
    ],
)
def test_a_tracer_refuses_what_there_is_not_too(tracer, prompt, target, search, message):
    with pytest.raises(UserError, match=message):
        tracer.trace(prompt, target, search)


def test_a_prompt_of_one_token_has_a_circuit(tracer):
    circuit = tracer.trace("w1", "logit[w5]@-1", Search(10, 3))
    assert circuit.tokens == ["<|endoftext|>", "w1"]
    reads = circuit.graph.in_edges(circuit.target.node, data="path_attribution")
    total = sum(amount for *_, amount in reads)
    assert total == pytest.approx(circuit.target.value, rel=1e-6)
