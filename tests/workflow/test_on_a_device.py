"""Every command that may use a GPU, with one that is pretended, on what a smoke run left."""

import inspect
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers_device import pretended_gpu
from transcoders.cli import circuits, data, dictionaries, interpretability

pytestmark = pytest.mark.full
TRANSCODER = "tiny-llama_layer1_transcoder_l1-0.5"


@pytest.fixture(scope="module")
def workspace_on_gpu(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a smoke run, to be computed again on whatever device there is."""
    folder = tmp_path_factory.mktemp("devices") / "run"
    shutil.copytree(run, folder, ignore=shutil.ignore_patterns(".snakemake"))
    scale = folder / "config/smoke.yaml"
    scale.write_text(scale.read_text().replace("device: cpu", "device: auto"))
    return folder


@pytest.fixture(autouse=True)
def own_settings() -> Any:
    """Commands set them for a process of their own; here they must not outlive a test."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        (data.cache_activations, {"model": "tiny-gpt2"}),
        (data.cache_activations, {"model": "tiny-neox"}),
        (data.cache_activations, {"model": "tiny-llama"}),
        (dictionaries.train, {"group": "tiny-llama"}),
        (dictionaries.train, {"group": "tiny-gpt2-extensions"}),
        (dictionaries.evaluate, {"site": "tiny-gpt2_layer1"}),
        (dictionaries.evaluate, {"site": "tiny-neox_layer1"}),
        (circuits.circuit, {"case": "tiny-feature"}),
        (circuits.circuit, {"case": "tiny-logits"}),
        (circuits.check_features, {}),
        (circuits.greater_than, {}),
        (interpretability.gather_examples, {}),
        (interpretability.study_features, {}),
        (interpretability.feature_pages, {"dictionary": TRANSCODER}),
    ],
)
def test_a_command_keeps_its_tensors_on_one_device(
    workspace_on_gpu: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: Callable[..., None],
    arguments: dict[str, str],
) -> None:
    monkeypatch.chdir(workspace_on_gpu)
    parameters = inspect.signature(command).parameters
    given = dict.fromkeys(parameters) | {
        name: parameter.default
        for name, parameter in parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }
    with pretended_gpu() as gpu:
        command(**given | {"scale": "smoke"} | arguments)
    assert gpu.operations > 100
