"""The command line: one message and exit status 1 for a user's mistake, never a traceback."""

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import jsonschema
import pytest
import torch
import yaml

from transcoders.activations import cache, cache_activations
from transcoders.cli.app import JOBS
from transcoders.config import Scale, load_scale
from transcoders.corpus import Rows
from transcoders.layout import Layout
from transcoders.models import MLPActivations

torch.set_num_threads(1)
ROOT = Path(__file__).resolve().parents[1]
SCALES = sorted(p for p in (ROOT / "config").glob("*.yaml") if p.name != "claims.yaml")
SOURCES = {"tokens": "0" * 64, "weights": "1" * 64}


def run(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "COLUMNS": "120", "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True,
        check=False, timeout=100,
    )  # fmt: skip


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
    known = message.partition("the scales here are")[2]
    assert "smoke" in known and "claims" not in known


def test_other_threads_than_the_scale_file_fixes_are_refused():
    message = refusal("train", "--scale", "smoke", "tiny-gpt2", "--threads", "7")
    assert "must run on 1 threads, 7 were granted" in message
    assert "snakemake" in message


def test_a_command_whose_section_the_scale_leaves_out_is_refused(tmp_path):
    copy_config(tmp_path, interpretability=None)
    for command in ("gather-examples", "measure-features", "table1"):
        message = refusal(command, "--scale", "smoke", cwd=tmp_path)
        assert "config/smoke.yaml: interpretability: this command needs it" in message


def test_a_model_that_the_scale_does_not_have_is_refused(tmp_path):
    copy_config(tmp_path)
    message = refusal("fetch-model", "--scale", "smoke", "gpt5", cwd=tmp_path)
    assert "no model named 'gpt5'; expected one of tiny-gpt2" in message
    assert [path.name for path in tmp_path.iterdir()] == ["config"]


def test_training_without_activations_says_what_to_run(tmp_path):
    copy_config(tmp_path)
    message = refusal("train", "--scale", "smoke", "tiny-gpt2", cwd=tmp_path)
    assert "results/smoke/activations/tiny-gpt2_layer1/activations.json: no such file" in message


def test_what_the_system_refuses_is_one_sentence(tmp_path):
    copy_config(tmp_path)
    (tmp_path / "results").write_text("in the way")
    message = refusal("fetch-corpus", "--scale", "smoke", cwd=tmp_path)
    assert "results" in message and "and run again" in message


def test_an_invalid_scale_is_refused_with_every_key_at_fault(tmp_path):
    copy_config(tmp_path, seed="many", device="tpu", instruction_set="avx")
    message = refusal("manifest", "--scale", "smoke", cwd=tmp_path)
    assert "\n  seed: expected " in message
    assert "\n  device: expected " in message
    assert "\n  instruction_set: expected 'avx2' or 'auto', found 'avx'" in message


def test_help_lists_the_subcommands():
    done = transcoders("--help")
    assert done.returncode == 0
    assert all(
        command in done.stdout for command in (*JOBS, "schema", "plan", "verify", "rate", "study")
    )


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


@pytest.mark.parametrize("path", SCALES, ids=lambda p: p.stem)
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
    """Put the smoke scale into an empty folder that stands for the repository.

    A changed section keeps the keys that are not named.
    """
    smoke = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())
    for key, value in changes.items():
        smoke[key] = smoke[key] | value if isinstance(value, dict) else value
    (folder / "config").mkdir()
    (folder / "config" / "smoke.yaml").write_text(yaml.safe_dump(smoke))


class RandomModel:
    """In place of a language model: what caching asks of one, with random activations."""

    def __init__(self, d_model: int) -> None:
        self.cfg = SimpleNamespace(d_model=d_model)
        self.generator = torch.Generator().manual_seed(0)

    def mlp_activations(self, tokens: torch.Tensor, layers: list[int]) -> dict[int, MLPActivations]:
        shape = (*tokens.shape, self.cfg.d_model)
        return {
            layer: MLPActivations(*(torch.randn(shape, generator=self.generator) for _ in range(2)))
            for layer in layers
        }


def write_cache(folder: Path, scale: Scale) -> None:
    """A cache of random activations for the scale's first site, in two shards."""
    n_rows, length = scale.corpus.train_contexts, scale.corpus.context_length
    cache_activations(
        RandomModel(d_model=32),
        Rows(torch.zeros(n_rows, length, dtype=torch.int32), torch.arange(n_rows)),
        {scale.sites[0]: folder},
        scale.activations.model_copy(update={"shard_contexts": n_rows // 2}),
        scale.corpus,
        sources=SOURCES,
    )


GROUPS = {
    "tiny-gpt2": ("transcoder_l1-0.5", "mlp_out_sae_l1-0.5", "mlp_in_sae_l1-0.5"),
    "more": ("skip_transcoder_l1-0.5", "topk_transcoder_k-8"),
}


def prepare_training(folder: Path) -> None:
    """All that training needs: 20 rows, so two batches of 256 tokens in each of two epochs."""
    extensions = {
        "name": "more",
        "site": {"model": "tiny-gpt2", "layer": 1},
        "dictionaries": [
            {"kind": "skip_transcoder", "l1_coefficient": 0.5},
            {"kind": "topk_transcoder", "k": 8},
        ],
    }
    groups = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())["groups"]
    copy_config(
        folder,
        corpus={"train_contexts": 20},
        groups=[group for group in groups if "train_contexts" not in group],
        training={"checkpoint_every_steps": 1},
        extensions=[extensions],
    )
    layout = Layout("smoke")
    scale = load_scale(folder / layout.config)
    with mock.patch.object(cache, "mlp_activations", RandomModel.mlp_activations):
        write_cache(folder / layout.activations(scale.sites[0].name), scale)
    (folder / layout.corpus_manifest).parent.mkdir(parents=True)
    (folder / layout.corpus_manifest).write_text("{}")


# What the `train` rule runs, and then which modules that took.
TRAIN_AND_LIST_MODULES = """
import sys
from transcoders.cli import main
for group in ("tiny-gpt2", "more"):
    sys.argv = ["transcoders", "train", "--scale", "smoke", group, "--threads", "1"]
    try:
        main()
    except SystemExit as done:
        assert not done.code, done.code
print(*sys.modules)
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, list[str]]:
    """A folder in which two groups of the smoke scale were trained, and the modules imported."""
    folder = tmp_path_factory.mktemp("repository")
    prepare_training(folder)
    done = run("-c", TRAIN_AND_LIST_MODULES, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout.split()


@pytest.mark.parametrize("library", ["transformers", "transformer_lens", "matplotlib", "datasets"])
def test_training_does_not_import_what_it_does_not_need(trained, library):
    _, modules = trained
    assert "torch" in modules
    assert library not in modules


def test_training_writes_every_dictionary_of_the_groups_and_nothing_else(trained):
    folder, _ = trained
    dictionaries = folder / "results" / "smoke" / "dictionaries"
    names = {f"tiny-gpt2_layer1_{name}" for group in GROUPS.values() for name in group}
    assert {path.name for path in dictionaries.iterdir()} == names
    for name in names:
        written = {path.name for path in (dictionaries / name).iterdir()}
        assert written == {"cfg.json", "sae_weights.safetensors", "training.csv"}
    # What made going on possible is gone when there is nothing to go on with.
    assert list((folder / "results" / "smoke" / "checkpoints").iterdir()) == []


@pytest.mark.parametrize("n_rows", [19, 21])
def test_a_cache_of_another_size_than_the_scale_says_is_refused(tmp_path, n_rows):
    prepare_training(tmp_path)
    config = tmp_path / "config" / "smoke.yaml"
    config.write_text(config.read_text().replace("train_contexts: 20", f"train_contexts: {n_rows}"))
    message = refusal("train", "--scale", "smoke", "tiny-gpt2", cwd=tmp_path)
    assert f"{31 * n_rows} tokens, as the scale file says, found 620" in message


@pytest.mark.parametrize(
    ("name", "hook", "architecture", "l1_coefficient", "k"),
    [
        ("transcoder_l1-0.5", "blocks.1.ln2.hook_normalized", "transcoder", 0.5, None),
        ("mlp_in_sae_l1-0.5", "blocks.1.ln2.hook_normalized", "standard", 0.5, None),
        ("mlp_out_sae_l1-0.5", "blocks.1.hook_mlp_out", "standard", 0.5, None),
        ("skip_transcoder_l1-0.5", "blocks.1.ln2.hook_normalized", "skip_transcoder", 0.5, None),
        ("topk_transcoder_k-8", "blocks.1.ln2.hook_normalized", "topk", None, 8),
    ],
)
def test_a_dictionary_records_what_it_was_trained_with(
    trained, name, hook, architecture, l1_coefficient, k
):
    folder, _ = trained
    path = folder / "results/smoke/dictionaries" / f"tiny-gpt2_layer1_{name}" / "cfg.json"
    record = json.loads(path.read_text())
    assert record["architecture"] == architecture
    assert record["metadata"]["hook_name"] == hook
    training = record["training"]
    assert (training["seed"], training["l1_coefficient"], training["k"]) == (42, l1_coefficient, k)
    assert training["tokens_trained"] == 2 * 512  # two epochs of two full batches of 256
    assert training["activations_of_sha256"] == SOURCES
    assert training["instruction_set"] == "avx2"
    assert training["versions"]["torch"] == version("torch").split("+")[0]
