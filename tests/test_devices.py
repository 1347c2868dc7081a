"""What runs on a GPU keeps its tensors there: checked without one."""

import pytest
import torch

from helpers_device import pretended_gpu
from helpers_training import ALL_KINDS, entry, random_cache, settings
from transcoders.training import train_group


def test_mixing_devices_is_noticed():
    with pretended_gpu() as gpu:
        here, there = torch.ones(3), torch.ones(3, device="cuda")
        assert (here.device.type, (there * 2 + there[1]).device.type) == ("cpu", "cuda")
        assert (there * torch.tensor(2.0)).device.type == "cuda"  # as on a real one
        numbers = torch.tensor([0, 2, 2], device="cuda")
        for error, message, mistake in (
            (AssertionError, "on the CPU", lambda: here + there),
            (AssertionError, "on the CPU", lambda: there.add_(here)),
            (TypeError, "numpy", there.numpy),
            (AssertionError, "not deterministic", lambda: torch.bincount(numbers, weights=there)),
            (AssertionError, "not deterministic", lambda: there.cumsum(0)),
        ):
            with pytest.raises(error, match=message):
                mistake()
        assert torch.bincount(numbers).cumsum(0).tolist() == [1, 1, 3]
        assert (there.cpu() + here).device.type == "cpu"
        assert here.to("cuda", torch.float64).device.type == "cuda"
        assert there.to("cpu").numpy().sum() == 3
        assert gpu.operations
    assert torch.ones(3).device.type == "cpu"


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
        results, again = (  # the second goes on from the first's last checkpoint
            train_group(
                entries, random_cache(), training, seed=0, device="cuda", checkpoint=checkpoint
            )
            for _ in range(2)
        )
        assert gpu.operations > 1000
        for result in (*results, *again):
            for tensor in result.dictionary.state_dict().values():
                assert tensor.device.type == "cpu"
    expected = train_group(entries, random_cache(), training, seed=0)
    for ours, resumed, theirs in zip(results, again, expected, strict=True):
        for name, tensor in theirs.dictionary.state_dict().items():
            found = ours.dictionary.state_dict()[name]
            torch.testing.assert_close(found, tensor)
            assert torch.equal(resumed.dictionary.state_dict()[name], found)
