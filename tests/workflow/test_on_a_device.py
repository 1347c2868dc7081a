"""Every command that may use a GPU, with one that is pretended, on what a smoke run left."""

import pytest

from helpers_device import COMMANDS, call, copy_for_a_gpu, pretended_gpu

pytestmark = [pytest.mark.full, pytest.mark.usefixtures("own_settings")]


@pytest.fixture(scope="module")
def workspace_on_gpu(run, tmp_path_factory):
    """The results of a smoke run, to be computed again on whatever device there is."""
    return copy_for_a_gpu(run, tmp_path_factory.mktemp("devices") / "run")


@pytest.mark.parametrize(("command", "arguments"), COMMANDS)
def test_a_command_keeps_its_tensors_on_one_device(
    workspace_on_gpu, monkeypatch, command, arguments
):
    monkeypatch.chdir(workspace_on_gpu)
    with pretended_gpu() as gpu:
        call(command, arguments)
    assert gpu.operations > 100
