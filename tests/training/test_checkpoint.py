"""The file of a checkpoint: what is read is what was written, or a message that names the file."""

from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from helpers_training import random_cache, settings, trainer_of
from transcoders.errors import UserError
from transcoders.training.checkpoint import load_checkpoint, save_checkpoint

IDENTITY: dict[str, Any] = {
    "dictionaries": [{"kind": "transcoder", "l1_coefficient": 0.1}],
    "adam_betas": (0.9, 0.999),
}


def trainer(n_steps=0):
    """A small trainer after some steps, with a sum and a row of the log."""
    cache = random_cache(n_tokens=96, d_model=2)
    made = trainer_of("transcoder", cache, settings(expansion=1, log_every_steps=2))
    for step in range(n_steps):
        made.step(step, cache.read(32 * step, 32 * step + 32))
    return made


TRAINED = trainer(3)


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "folder" / "group.safetensors"
    save_checkpoint(file, [TRAINED], 3, IDENTITY)
    return file


def assert_restored(path):
    found = trainer()
    assert load_checkpoint(path, [found], IDENTITY) == 3
    assert (found.density, found.log) == (TRAINED.density, TRAINED.log)
    assert found.tensors.keys() == TRAINED.tensors.keys()
    for name, tensor in TRAINED.tensors.items():
        assert torch.equal(found.tensors[name], tensor), name


def assert_refused(path):
    """A checkpoint is refused with a message that names the file, which stays as it is."""
    before = path.read_bytes()
    with pytest.raises(UserError, match=f"{path}: .*delete"):
        load_checkpoint(path, [trainer()], IDENTITY)
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]


def test_a_checkpoint_takes_the_place_of_the_one_before_and_is_read_as_written(path):
    assert TRAINED.log and TRAINED.tensors["since_log.loss"] > 0
    save_checkpoint(path, [trainer(1)], 1, IDENTITY)
    save_checkpoint(path, [TRAINED], 3, IDENTITY)
    assert_restored(path)
    assert list(path.parent.iterdir()) == [path]


def test_damage_anywhere_is_refused_or_means_nothing(path):
    whole = path.read_bytes()
    refused, positions = 0, range(0, len(whole), 7)
    for position in positions:
        path.write_bytes(whole[:position])
        assert_refused(path)
        flipped = bytearray(whole)
        flipped[position] ^= 1 << position % 8
        path.write_bytes(flipped)
        try:
            assert_restored(path)  # such as 1E-05 for 1e-05
        except UserError as error:
            assert str(error).startswith(f"{path}: ")
            refused += 1
    assert refused > 0.98 * len(positions)


@pytest.mark.parametrize("header", [None, "[]"])
def test_a_safetensors_file_that_is_no_checkpoint_is_refused(path, header):
    save_file({"x": torch.ones(3)}, path, None if header is None else {"checkpoint": header})
    assert_refused(path)
