"""The command line: one message and exit status 1 for a user's mistake, never a traceback."""

import errno
import json
from importlib.metadata import version
from pathlib import Path
from unittest import mock

import jsonschema
import pytest
import torch
import yaml

from helpers_models import make_tiny_model
from transcoders import cli
from transcoders.activations import cache_activations
from transcoders.cli.app import JOBS
from transcoders.config import load_scale
from transcoders.corpus import Rows
from transcoders.layout import Layout
from transcoders.models import load_model
from workflow.running import python

ROOT = Path(__file__).resolve().parents[1]
SMOKE = (ROOT / "config/smoke.yaml").read_text()
SOURCES = {"tokens": "0" * 64, "weights": "1" * 64}


def transcoders(*arguments, cwd=ROOT):
    return python(cwd, "-m", "transcoders", *arguments)


def refusal(*arguments, cwd):
    """The one message of a command that is refused."""
    done = transcoders(*arguments, cwd=cwd)
    assert (done.returncode, done.stdout) == (1, "") and "Traceback" not in done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("error: ") == 1
    return done.stderr


def make_config(folder, scale):
    """Put a scale into an empty folder that stands for the repository, under the name `smoke`."""
    (folder / "config").mkdir()
    (folder / "config/smoke.yaml").write_text(yaml.safe_dump(scale))


def test_what_a_user_can_put_right_is_one_sentence(tmp_path):
    make_config(tmp_path, yaml.safe_load(SMOKE) | {"interpretability": None})
    said = refusal("gather-examples", "--scale", "smoke", cwd=tmp_path)
    assert "config/smoke.yaml: interpretability: this command needs it" in said


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError("9 GB"), r"too little memory \(9 GB\); end other programs"),
        (torch.OutOfMemoryError("9 GB"), r"too little memory \(9 GB\); end other programs"),
        (OSError(errno.ENOSPC, "No space", "results/a"), "results/a: No space; free some space"),
    ],
)
def test_too_little_memory_or_disk_is_one_sentence(monkeypatch, error, said):
    monkeypatch.setattr(cli, "app", mock.Mock(side_effect=error))
    with pytest.raises(SystemExit, match=f"^error: {said}"):
        cli.main()


def test_help_lists_the_subcommands():
    listed = transcoders("--help").stdout
    commands = (*JOBS, "circuit", "attention", "schema", "plan", "verify", "rate", "study")
    assert all(command in listed for command in commands)


def test_the_schema_accepts_the_committed_scales_and_refuses_wrong_keys():
    schema = yaml.safe_load(transcoders("schema").stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for path in (ROOT / "config").glob("*.yaml"):
        scale = yaml.safe_load(path.read_text())
        assert path.name == "claims.yaml" or list(validator.iter_errors(scale)) == []
    for wrong in ({"sede": 1}, {"seed": -1}):
        assert len(list(validator.iter_errors(yaml.safe_load(SMOKE) | wrong))) == 1


GROUPS = ("tiny-gpt2", "tiny-gpt2-extensions")
# What the `train` rule runs, and then which modules that took.
TRAIN_AND_LIST_MODULES = f"""
import sys
from transcoders.cli import main
for group in {GROUPS}:
    sys.argv = ["transcoders", "train", "--scale", "smoke", group, "--threads", "1"]
    try:
        main()
    except SystemExit as done:
        assert not done.code, done.code
print(*sys.modules)
"""


@pytest.fixture
def to_train(tmp_path, random_tokens):
    """A folder with all that training needs: 20 rows, so two batches of 256 tokens an epoch."""
    layout, smoke = Layout("smoke"), yaml.safe_load(SMOKE)
    smoke["groups"] = [group for group in smoke["groups"] if "train_contexts" not in group]
    smoke["groups"][0]["dictionaries"][0]["learning_rate"] = 0.01
    smoke["corpus"]["train_contexts"] = 20
    smoke["training"]["checkpoint_every_steps"] = 1
    make_config(tmp_path, smoke)
    scale = load_scale(tmp_path / layout.config)
    site = scale.sites[0]
    cache_activations(
        load_model(make_tiny_model("phi", tmp_path / "phi")),  # one norm for attention and MLP
        Rows(random_tokens(20, scale.corpus.context_length), torch.arange(20)),
        {site: tmp_path / layout.activations(site.name)},
        scale.activations,
        scale.corpus,
        sources=SOURCES,
    )
    (tmp_path / layout.corpus_manifest).parent.mkdir(parents=True)
    (tmp_path / layout.corpus_manifest).write_text("{}")
    return tmp_path


def test_training_writes_and_records_its_dictionaries_and_imports_little(to_train):
    results, config = to_train / "results/smoke", to_train / "config/smoke.yaml"
    done = python(to_train, "-c", TRAIN_AND_LIST_MODULES)
    assert done.returncode == 0, done.stderr
    unneeded = {"transformers", "transformer_lens", "matplotlib", "datasets"}
    assert not unneeded & set(done.stdout.split())
    scale = load_scale(config)
    entries = [e for group in GROUPS for e in scale.dictionaries_in(scale.group(group))]
    made = {str(path.relative_to(results)) for path in results.glob("dictionaries/*/*")}
    files = ("cfg.json", "sae_weights.safetensors", "training.csv")
    assert made == {f"dictionaries/{entry.name}/{file}" for entry in entries for file in files}
    assert list((results / "checkpoints").iterdir()) == []
    for entry in entries:
        record = json.loads((results / "dictionaries" / entry.name / "cfg.json").read_text())
        reads_output = entry.traits.reads == "mlp_out"
        hook = "blocks.1.hook_mlp_out" if reads_output else "blocks.1.ln1.hook_normalized"
        assert record["metadata"]["hook_name"] == hook
        training = record["training"]
        assert training["learning_rate"] == (entry.learning_rate or scale.training.learning_rate)
        assert (training["l1_coefficient"], training["k"]) == (entry.l1_coefficient, entry.k)
        # two epochs of two full batches of 256
        assert (training["seed"], training["tokens_trained"]) == (42, 2 * 512)
        assert training["activations_of_sha256"] == SOURCES
        assert training["instruction_set"] == "avx2"
        assert training["versions"]["torch"] == version("torch").split("+")[0]
    config.write_text(config.read_text().replace("train_contexts: 20", "train_contexts: 19"))
    message = refusal("train", "--scale", "smoke", "tiny-gpt2", cwd=to_train)
    assert f"expected tokens {31 * 19}, as the scale file says, found 620" in message
