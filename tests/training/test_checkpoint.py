"""The file of a checkpoint: what is read is what was written, or a message that names the file."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from transcoders.errors import UserError
from transcoders.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint

IDENTITY: dict[str, Any] = {
    "dictionaries": [{"kind": "transcoder", "l1_coefficient": 0.1}],
    "adam_betas": (0.9, 0.999),
    "seed": 42,
    "activations": {"shard-00000.safetensors": "f00d"},
}


def example() -> Checkpoint:
    generator = torch.Generator().manual_seed(0)
    tensors = {
        "0.W_dec": torch.randn(3, 4, generator=generator),
        "0.adam.step": torch.tensor(7.0),
        "0.since_log.fired": torch.arange(5),
        "0.transposed": torch.randn(4, 2, generator=generator).T,
    }
    log = [{"step": 5, "loss": 0.1 + 0.2, "l1_coefficient": float("nan"), "small": 1e-05}]
    return Checkpoint(7, tensors, [{"density": 1 / 3, "log": log}])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "folder" / "group.safetensors"
    save_checkpoint(file, example(), IDENTITY)
    return file


def same(found: Checkpoint | None, expected: Checkpoint) -> bool:
    assert found is not None
    same_rest = repr((found.step, found.records)) == repr((expected.step, expected.records))
    return same_rest and found.tensors.keys() == expected.tensors.keys() and all(
        torch.equal(found.tensors[name], tensor) and found.tensors[name].dtype == tensor.dtype
        for name, tensor in expected.tensors.items()
    )  # fmt: skip


def refusal(path: Path, identity: dict[str, Any]) -> str:
    """The message with which a checkpoint is refused; it names the file, which stays as it is."""
    before = path.read_bytes()
    with pytest.raises(UserError) as caught:
        load_checkpoint(path, identity)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "delete" in message
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
    return message


def test_what_is_read_is_what_was_written(path: Path) -> None:
    assert same(load_checkpoint(path, IDENTITY), example())


def test_without_a_file_there_is_no_checkpoint(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path / "none.safetensors", IDENTITY) is None


def test_a_checkpoint_takes_the_place_of_the_one_before(path: Path) -> None:
    later = example()._replace(step=8)
    save_checkpoint(path, later, IDENTITY)
    assert same(load_checkpoint(path, IDENTITY), later)
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 43}, "seed is 42 there, 43 here"),
        ({"adam_betas": (0.9, 0.99)}, "adam_betas is [0.9, 0.999] there, [0.9, 0.99] here"),
        ({"activations": {}}, "activations is {'shard-00000.safetensors': 'f00d'} there, {} here"),
        ({"threads": 2}, "threads is None there, 2 here"),
    ],
)
def test_another_identity_is_refused_with_what_differs(
    path: Path, change: dict[str, Any], message: str
) -> None:
    assert f"other settings: {message}" in refusal(path, IDENTITY | change)


def test_a_truncated_file_is_refused_wherever_it_ends(path: Path) -> None:
    whole = path.read_bytes()
    for length in [*range(0, len(whole), 10), len(whole) - 1]:
        path.write_bytes(whole[:length])
        refusal(path, IDENTITY)


def test_a_flipped_bit_is_refused_or_means_nothing(path: Path) -> None:
    whole = path.read_bytes()
    refused = 0
    for position in range(len(whole)):
        flipped = bytearray(whole)
        flipped[position] ^= 1 << position % 8
        path.write_bytes(flipped)
        try:
            found = load_checkpoint(path, IDENTITY)
        except UserError as error:
            assert str(error).startswith(f"{path}: ")
            refused += 1
        else:
            assert same(found, example())  # such as 1E-05 for 1e-05
        assert path.read_bytes() == flipped
    assert refused > 0.99 * len(whole)


@pytest.mark.parametrize("content", [b"", b"text", b"{}", b"\x00" * 1000, b"\xff" * 1000])
def test_a_file_of_another_kind_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert "expected a checkpoint, found" in refusal(path, IDENTITY)


@pytest.mark.parametrize("header", [None, "", "{}", "[]", "3", '{"sha256": "0"}', '["sha256"]'])
def test_a_safetensors_file_that_is_no_checkpoint_is_refused(path: Path, header: str) -> None:
    from safetensors.torch import save_file

    save_file({"x": torch.ones(3)}, path, None if header is None else {"checkpoint": header})
    refusal(path, IDENTITY)


def test_too_little_disk_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(UserError, match="a training checkpoint needs"):
        save_checkpoint(tmp_path / "new" / "group.safetensors", example(), IDENTITY)
    assert list(tmp_path.iterdir()) == []
