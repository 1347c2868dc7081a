"""A question about what does not exist is refused in one sentence."""

from pathlib import Path

import pytest

from helpers_circuits import PROMPT
from transcoders.circuits import Tracer, attention_score
from transcoders.cli import app
from transcoders.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = {
    "circuit": {"--target": "logit[w5]@-1"},
    "attention": {"--head": "attn1[0]", "--key": "2"},
}


@pytest.fixture
def ask(tracer, own_settings, monkeypatch):  # noqa: ARG001  (so that none outlast the test)
    """Runs a command, with some of its options changed."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(Tracer, "load", lambda *_, **__: tracer)

    def ask(command, changes):
        options = {"--model": "tiny-llama", "--prompt": PROMPT} | OPTIONS[command] | changes
        words = [word for option in options.items() for word in option]
        app([command, "--scale", "smoke", *words], standalone_mode=False)

    return ask


REFUSED: list[tuple[str, dict[str, str], str]] = [
    ("circuit", {"--component": "heads"}, "components: heads not known"),
    ("circuit", {"--layer": "3"}, "layer 3: expected one from 0 to 2"),
    ("circuit", {"--token": "5"}, "token 5: expected one from -5 to 4"),
    ("circuit", {"--target": "logit[w5]@9"}, "token 9: expected one from -5 to 4"),
    ("circuit", {"--target": "logit[w5 w6]@-1"}, "'w5 w6' is 2 tokens"),
    ("circuit", {"--target": "tc0[top]@0"}, "most active: none; no transcoder was trained on"),
    ("circuit", {"--target": "tc2[999]@-1"}, "layer 2 has 64 features"),
    ("circuit", {"--target": "tc1[top]@-1"}, "layer 1 has no transcoder; .*: 0, 2"),
    ("circuit", {"--prompt": "<|endoftext|> w1"}, r"expected text without <\|endoftext\|>"),
    ("circuit", {"--prompt": "w1 " * 256}, "at most the model's 256 positions, found 257"),
    ("circuit", {"--sign": "any"}, "sign: expected one of positive, negative, both"),
    ("circuit", {"--head": "tc0[2]"}, r"expected a layer and head such as attn9\[1\]"),
    ("attention", {"--head": "attn0[2]"}, r"head attn0\[2\]: expected a layer from 0 to 2"),
    ("circuit", {"--prompt": ""}, "prompt: expected some text, found none"),
    ("attention", {"--query": "1"}, "cannot read it from token 1; expected a token from 0 to 1"),
]


@pytest.mark.parametrize(("command", "changes", "message"), REFUSED)
def test_the_command_line_refuses_what_does_not_exist(ask, command, changes, message):
    with pytest.raises(UserError, match=message):
        ask(command, changes)


def test_the_command_line_answers(ask, tracer, capsys):
    ask("attention", {})
    first, *lines = capsys.readouterr().out.splitlines()
    found = attention_score(tracer.freeze(PROMPT), 1, 0, -1, 2)
    assert first.startswith(f"attn1[0] from token 4 to token 2: score {found.score:.3f}, ")
    assert [line.split()[1] for line in lines[1:]] == found.table()["query_part"].tolist()
    for changes, signs in (({}, {True, False}), ({"--sign": "negative"}, {False})):
        ask("circuit", changes)
        lines = capsys.readouterr().out.splitlines()[1:]
        attributions = [float(line.split()[0]) for line in lines]
        assert {attribution > 0 for attribution in attributions} == signs
        assert attributions == sorted(attributions, key=abs, reverse=True)


@pytest.mark.usefixtures("own_settings")
def test_a_model_without_a_circuit_or_a_name_in_the_scale_is_refused(monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(UserError, match="no model named 'gpt5'"):
        Tracer.load("smoke", "gpt5")
    with pytest.raises(UserError, match=r"circuits\.cases: expected a case of tiny-gpt2, found"):
        app(["find-circuits", "--scale", "smoke", "tiny-gpt2"], standalone_mode=False)
