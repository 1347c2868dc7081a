"""Every command that may use a GPU, with one that is pretended, on what a smoke run left."""

from collections.abc import Callable
from pathlib import Path

import pytest

from helpers_device import COMMANDS, call, copy_for_a_gpu, pretended_gpu

pytestmark = [pytest.mark.full, pytest.mark.usefixtures("own_settings")]


@pytest.fixture(scope="module")
def workspace_on_gpu(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a smoke run, to be computed again on whatever device there is."""
    return copy_for_a_gpu(run, tmp_path_factory.mktemp("devices") / "run")


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
