"""The command line: one message and exit status 1 for a user's mistake, never a traceback."""

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import jsonschema
import pytest
import torch
import yaml

from transcoders.activations import _finish, _write_shard
from transcoders.config import Site, load_scale
from transcoders.layout import Layout
from transcoders.models import MLPActivations

torch.set_num_threads(1)
ROOT = Path(__file__).resolve().parents[1]
SOURCES = {"tokens": "0" * 64, "weights": "1" * 64}


def run(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "COLUMNS": "120", "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def transcoders(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return run("-m", "transcoders", *arguments, cwd=cwd)


def refusal(*arguments: str, cwd: Path = ROOT) -> str:
    """The one message of a command that is refused."""
    done = transcoders(*arguments, cwd=cwd)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("error: ") == 1
    return done.stderr


def test_a_scale_that_does_not_exist_is_refused_with_those_that_do():
    message = refusal("fetch-model", "--scale", "smok", "tiny-gpt2")
    assert "config/smok.yaml: no such scale file" in message
    assert "smoke" in message.partition("the scales here are")[2]


def test_other_threads_than_the_scale_file_fixes_are_refused():
    message = refusal("train", "--scale", "smoke", "tiny-gpt2", "--threads", "7")
    assert "must run on 1 threads, 7 were granted" in message
    assert "snakemake" in message


def test_a_model_that_the_scale_does_not_have_is_refused(tmp_path):
    copy_config(tmp_path)
    message = refusal("fetch-model", "--scale", "smoke", "gpt5", cwd=tmp_path)
    assert "no model named 'gpt5'; expected one of tiny-gpt2" in message
    assert [path.name for path in tmp_path.iterdir()] == ["config"]


def test_training_without_activations_says_what_to_run(tmp_path):
    copy_config(tmp_path)
    message = refusal("train", "--scale", "smoke", "tiny-gpt2", cwd=tmp_path)
    assert "results/smoke/activations/tiny-gpt2_layer1/cache.json: no such file" in message


def test_an_invalid_scale_is_refused_with_every_key_at_fault(tmp_path):
    copy_config(tmp_path, seed="many", device="tpu")
    message = refusal("manifest", "--scale", "smoke", cwd=tmp_path)
    assert "\n  seed: expected " in message
    assert "\n  device: expected " in message


def test_help_lists_the_subcommands():
    done = transcoders("--help")
    assert done.returncode == 0
    for command in (
        "fetch-model",
        "fetch-corpus",
        "tokenize",
        "manifest",
        "cache-activations",
        "train",
        "evaluate",
        "collect-tables",
        "notebook",
        "schema",
    ):
        assert command in done.stdout


@pytest.fixture(scope="module")
def schema_text() -> str:
    done = transcoders("schema")
    assert done.returncode == 0
    return done.stdout


@pytest.fixture(scope="module")
def validator(schema_text) -> jsonschema.Draft202012Validator:
    schema = yaml.safe_load(schema_text)
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.yaml")), ids=lambda p: p.stem)
def test_the_schema_accepts_the_committed_scales(validator, path):
    assert list(validator.iter_errors(yaml.safe_load(path.read_text()))) == []


def test_the_schema_refuses_a_missing_a_misspelt_and_a_wrong_key(validator):
    smoke = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())
    without_seed = {key: value for key, value in smoke.items() if key != "seed"}
    for wrong in (without_seed, {**smoke, "sede": 1}, {**smoke, "seed": -1}):
        assert len(list(validator.iter_errors(wrong))) == 1


def test_the_committed_schema_is_the_one_that_the_code_generates(schema_text):
    committed = ROOT / "workflow" / "schemas" / "config.schema.yaml"
    assert committed.read_text() == schema_text


def copy_config(folder: Path, **changes: object) -> None:
    """Put the smoke scale into an empty folder that stands for the repository."""
    smoke = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())
    (folder / "config").mkdir()
    (folder / "config" / "smoke.yaml").write_text(yaml.safe_dump(smoke | changes))


def write_cache(folder: Path, site: Site, d_model: int) -> None:
    """A cache of random activations, in two shards, as ``cache_activations`` leaves it."""
    generator = torch.Generator().manual_seed(0)
    for number in range(2):
        batch = MLPActivations(
            *(torch.randn(300, d_model, generator=generator).half() for _ in range(2))
        )
        _write_shard(folder, number, [batch])
    (folder / "begun.json").write_text("{}")
    _finish(folder, {"sources": SOURCES}, 2, 600, d_model, site)


# What the `train` rule runs, and then which modules that took.
TRAIN_AND_LIST_MODULES = """
import sys
from transcoders.cli import main
sys.argv = ["transcoders", "train", "--scale", "smoke", "tiny-gpt2", "--threads", "1"]
try:
    main()
except SystemExit as done:
    assert not done.code, done.code
print(*sys.modules)
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, list[str]]:
    """A folder in which one group of the smoke scale was trained, and the modules imported."""
    folder = tmp_path_factory.mktemp("repository")
    copy_config(folder)
    site = load_scale(folder / "config" / "smoke.yaml").site("tiny-gpt2_layer1")
    layout = Layout("smoke")
    write_cache(folder / layout.activations(site.name), site, d_model=32)
    (folder / layout.corpus_manifest).parent.mkdir(parents=True)
    (folder / layout.corpus_manifest).write_text("{}")
    done = run("-c", TRAIN_AND_LIST_MODULES, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout.split()


@pytest.mark.parametrize("library", ["transformers", "transformer_lens", "matplotlib", "datasets"])
def test_training_does_not_import_what_it_does_not_need(trained, library):
    _, modules = trained
    assert "torch" in modules
    assert library not in modules


def test_training_writes_every_dictionary_of_the_group(trained):
    folder, _ = trained
    scale = load_scale(folder / "config" / "smoke.yaml")
    names = {entry.name for entry in scale.dictionaries if entry.group == "tiny-gpt2"}
    dictionaries = folder / "results" / "smoke" / "dictionaries"
    assert {path.name for path in dictionaries.iterdir()} == names
    for name in names:
        written = {path.name for path in (dictionaries / name).iterdir()}
        assert written == {"cfg.json", "sae_weights.safetensors", "training.csv"}


@pytest.mark.parametrize(
    ("kind", "hook", "architecture"),
    [
        ("transcoder", "blocks.1.ln2.hook_normalized", "transcoder"),
        ("mlp_in_sae", "blocks.1.ln2.hook_normalized", "standard"),
        ("mlp_out_sae", "blocks.1.hook_mlp_out", "standard"),
    ],
)
def test_a_dictionary_records_what_it_was_trained_with(trained, kind, hook, architecture):
    folder, _ = trained
    path = folder / "results/smoke/dictionaries" / f"tiny-gpt2_layer1_{kind}_l1-0.5" / "cfg.json"
    record = json.loads(path.read_text())
    assert record["architecture"] == architecture
    assert record["metadata"]["hook_name"] == hook
    training = record["training"]
    assert (training["seed"], training["l1_coefficient"]) == (42, 0.5)
    assert training["tokens_trained"] == 2 * 512  # two epochs of two full batches of 256
    assert training["activations_of_sha256"] == SOURCES
    assert training["versions"]["torch"] == version("torch").split("+")[0]
