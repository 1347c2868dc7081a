"""The command line: one message and exit status 1 for a user's mistake, never a traceback."""

import json
import shutil
from importlib.metadata import version
from pathlib import Path

import jsonschema
import pytest
import torch
import yaml

from helpers_models import make_tiny_model
from transcoders.activations import cache_activations
from transcoders.cli.app import JOBS
from transcoders.config import load_scale
from transcoders.corpus import Rows
from transcoders.layout import Layout
from transcoders.models import load_model
from transcoders.training.job import train_group_of
from workflow.running import python

ROOT = Path(__file__).resolve().parents[1]
SCALES = sorted(p for p in (ROOT / "config").glob("*.yaml") if p.name != "claims.yaml")
SOURCES = {"tokens": "0" * 64, "weights": "1" * 64}


def transcoders(*arguments, cwd=ROOT):
    return python(cwd, "-m", "transcoders", *arguments)


def refusal(*arguments, cwd=ROOT):
    """The one message of a command that is refused."""
    done = transcoders(*arguments, cwd=cwd)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("error: ") == 1
    return done.stderr


def test_a_command_whose_section_the_scale_leaves_out_is_refused(tmp_path):
    copy_config(tmp_path, interpretability=None)
    message = refusal("gather-examples", "--scale", "smoke", cwd=tmp_path)
    assert "config/smoke.yaml: interpretability: this command needs it" in message


def test_training_without_activations_says_what_to_run(tmp_path):
    copy_config(tmp_path)
    message = refusal("train", "--scale", "smoke", "tiny-gpt2", cwd=tmp_path)
    assert "results/smoke/activations/tiny-gpt2_layer1/activations.json: no such file" in message


def test_what_the_system_refuses_is_one_sentence(tmp_path):
    copy_config(tmp_path)
    (tmp_path / "results").write_text("in the way")
    message = refusal("fetch-corpus", "--scale", "smoke", cwd=tmp_path)
    assert "results" in message and "and run again" in message


def test_help_lists_the_subcommands():
    done = transcoders("--help")
    assert done.returncode == 0
    assert all(
        command in done.stdout for command in (*JOBS, "schema", "plan", "verify", "rate", "study")
    )


@pytest.fixture(scope="module")
def validator():
    schema = yaml.safe_load(transcoders("schema").stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("path", SCALES, ids=lambda p: p.stem)
def test_the_schema_accepts_the_committed_scales(validator, path):
    assert list(validator.iter_errors(yaml.safe_load(path.read_text()))) == []


def test_the_schema_refuses_a_missing_a_misspelt_and_a_wrong_key(validator):
    smoke = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())
    without_seed = {key: value for key, value in smoke.items() if key != "seed"}
    for wrong in (without_seed, {**smoke, "sede": 1}, {**smoke, "seed": -1}):
        assert len(list(validator.iter_errors(wrong))) == 1


def copy_config(folder, **changes):
    """Put the smoke scale into an empty folder that stands for the repository.

    A changed section keeps the keys that are not named.
    """
    smoke = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())
    for key, value in changes.items():
        smoke[key] = smoke[key] | value if isinstance(value, dict) else value
    (folder / "config").mkdir()
    (folder / "config" / "smoke.yaml").write_text(yaml.safe_dump(smoke))


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


@pytest.fixture(scope="module")
def to_train(tmp_path_factory, tiny_models, random_tokens):
    """A folder with all that training needs: 20 rows, so two batches of 256 tokens an epoch."""
    folder, layout = tmp_path_factory.mktemp("repository"), Layout("smoke")
    smoke = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())
    groups = [group for group in smoke["groups"] if "train_contexts" not in group]
    changes = {"corpus": {"train_contexts": 20}, "training": {"checkpoint_every_steps": 1}}
    copy_config(folder, groups=groups, **changes)
    scale = load_scale(folder / layout.config)
    site = scale.sites[0]
    cache_activations(
        load_model(tiny_models["gpt2"]),
        Rows(random_tokens(20, scale.corpus.context_length), torch.arange(20)),
        {site: folder / layout.activations(site.name)},
        scale.activations,
        scale.corpus,
        sources=SOURCES,
    )
    (folder / layout.corpus_manifest).parent.mkdir(parents=True)
    (folder / layout.corpus_manifest).write_text("{}")
    return folder


def test_a_dictionary_names_a_hook_that_its_model_has(
    to_train, tmp_path, monkeypatch, random_tokens
):
    shutil.copytree(to_train, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    layout = Layout("smoke")
    scale, model = load_scale(layout.config), load_model(make_tiny_model("phi", tmp_path / "phi"))
    rows = Rows(random_tokens(20, scale.corpus.context_length), torch.arange(20))
    folder = layout.activations(scale.sites[0].name)
    shutil.rmtree(folder)
    cache_activations(
        model, rows, {scale.sites[0]: folder}, scale.activations, scale.corpus, sources=SOURCES
    )
    train_group_of(scale, layout, scale.group("tiny-gpt2"))
    for entry in scale.dictionaries_in(scale.group("tiny-gpt2")):
        metadata = json.loads((layout.dictionary(entry.name) / "cfg.json").read_text())["metadata"]
        assert {metadata["hook_name"], metadata["hook_name_out"]} <= model.hook_dict.keys()


@pytest.mark.parametrize("n_rows", [19, 21])
def test_a_cache_of_another_size_than_the_scale_says_is_refused(to_train, tmp_path, n_rows):
    shutil.copytree(to_train, tmp_path, dirs_exist_ok=True)
    config = tmp_path / "config" / "smoke.yaml"
    config.write_text(config.read_text().replace("train_contexts: 20", f"train_contexts: {n_rows}"))
    message = refusal("train", "--scale", "smoke", "tiny-gpt2", cwd=tmp_path)
    assert f"expected tokens {31 * n_rows}, as the scale file says, found 620" in message


def test_training_writes_and_records_its_dictionaries_and_imports_little(to_train):
    done = python(to_train, "-c", TRAIN_AND_LIST_MODULES)
    assert done.returncode == 0, done.stderr
    modules = set(done.stdout.split())
    assert "torch" in modules
    assert not modules & {"transformers", "transformer_lens", "matplotlib", "datasets"}
    results, scale = to_train / "results/smoke", load_scale(to_train / "config/smoke.yaml")
    entries = [e for group in GROUPS for e in scale.dictionaries_in(scale.group(group))]
    dictionaries = results / "dictionaries"
    assert {path.name for path in dictionaries.iterdir()} == {entry.name for entry in entries}
    # What made going on possible is gone when there is nothing to go on with.
    assert list((results / "checkpoints").iterdir()) == []
    for entry in entries:
        folder = dictionaries / entry.name
        written = {path.name for path in folder.iterdir()}
        assert written == {"cfg.json", "sae_weights.safetensors", "training.csv"}
        record = json.loads((folder / "cfg.json").read_text())
        reads_output = entry.traits.reads == "mlp_out"
        hook = "blocks.1.hook_mlp_out" if reads_output else "blocks.1.ln2.hook_normalized"
        assert record["metadata"]["hook_name"] == hook
        training = record["training"]
        assert training["seed"] == 42
        assert (training["l1_coefficient"], training["k"]) == (entry.l1_coefficient, entry.k)
        assert training["tokens_trained"] == 2 * 512  # two epochs of two full batches of 256
        assert training["activations_of_sha256"] == SOURCES
        assert training["instruction_set"] == "avx2"
        assert training["versions"]["torch"] == version("torch").split("+")[0]
