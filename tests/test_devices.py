"""What runs on a GPU keeps its tensors there: checked without one."""

import pytest
import torch

from helpers_device import COMMANDS, call, copy_for_a_gpu, pretended_gpu
from helpers_training import ALL_KINDS, entry, random_cache, saved, settings
from transcoders.training import train_group

CACHE = random_cache()


def test_mixing_devices_is_noticed():
    with pretended_gpu() as gpu:
        here, there = torch.ones(3), torch.ones(3, device="cuda")
        assert (here.device.type, (there * 2 + there[1]).device.type) == ("cpu", "cuda")
        assert (there * torch.tensor(2.0)).device.type == "cuda"  # as on a real one
        for mistake, message in (
            (lambda: here + there, "on the CPU"),
            (there.numpy, "numpy"),
            (lambda: there.cumsum(0), "not deterministic"),
        ):
            with pytest.raises((AssertionError, TypeError), match=message):
                mistake()
        assert here.to("cuda", torch.float64).device.type == "cuda"
        assert (there.cpu() + here).numpy().sum() == 6
        assert gpu.operations


@pytest.mark.parametrize("sparse_below", [0, 1])
def test_training_stays_on_the_device(sparse_below, tmp_path):
    training = settings(
        sparse_below_density=sparse_below,
        normalize_activations="mean_norm",
        checkpoint_every_steps=3,
    )
    entries = [entry(kind) for kind in ALL_KINDS]
    checkpoint = tmp_path / "checkpoint.safetensors"
    with pretended_gpu() as gpu:
        on_gpu = {"device": "cuda", "checkpoint": checkpoint}
        # The second goes on from the first's last checkpoint.
        results, again = (train_group(entries, CACHE, training, seed=0, **on_gpu) for _ in range(2))
        assert gpu.operations > 1000
        tensors = [t for each in (*results, *again) for t in each.dictionary.parameters()]
        assert {tensor.device.type for tensor in tensors} == {"cpu"}
    for each, other in zip(results, again, strict=True):
        assert saved(each) == saved(other)
    expected = train_group(entries, CACHE, training, seed=0)
    for each, other in zip(results, expected, strict=True):
        torch.testing.assert_close(each.dictionary.state_dict(), other.dictionary.state_dict())


@pytest.fixture(scope="module")
def workspace_on_gpu(run, tmp_path_factory):
    """The results of a smoke run, to be computed again on whatever device there is."""
    return copy_for_a_gpu(run, tmp_path_factory.mktemp("devices") / "run")


@pytest.mark.full
@pytest.mark.usefixtures("own_settings")
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_keeps_its_tensors_on_one_device(workspace_on_gpu, monkeypatch, command):
    monkeypatch.chdir(workspace_on_gpu)
    with pretended_gpu() as gpu:
        call(command)
    assert gpu.operations > 100
