"""Every command that may use a GPU, with one that is pretended, on what a smoke run left."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers_device import COMMANDS, call, pretended_gpu

pytestmark = [pytest.mark.full, pytest.mark.usefixtures("own_settings")]


@pytest.fixture(scope="module")
def workspace_on_gpu(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a smoke run, to be computed again on whatever device there is."""
    folder = tmp_path_factory.mktemp("devices") / "run"
    shutil.copytree(run, folder, ignore=shutil.ignore_patterns(".snakemake"))
    scale = folder / "config/smoke.yaml"
    scale.write_text(scale.read_text().replace("device: cpu", "device: auto"))
    return folder


@pytest.mark.parametrize(("command", "arguments"), COMMANDS)
def test_a_command_keeps_its_tensors_on_one_device(
    workspace_on_gpu: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: Callable[..., None],
    arguments: dict[str, str],
) -> None:
    monkeypatch.chdir(workspace_on_gpu)
    with pretended_gpu() as gpu:
        call(command, arguments)
    assert gpu.operations > 100
