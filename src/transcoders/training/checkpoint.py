"""What a training job saves, so that it can be killed at any moment and lose little.

Each group has one file. It holds all tensors that a step changes. Its header holds the step, the
other state of each trainer, the *identity* of the job (every setting and input that its result
depends on), and a hash of all this. A job goes on only from a checkpoint of its own identity. Then
it ends with the same bytes as a job that was never interrupted.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from transcoders.errors import UserError
from transcoders.files import atomic_path, check_disk, save_tensors
from transcoders.training.trainer import Trainer

FORMAT = 3


def save_checkpoint(
    path: Path, trainers: list[Trainer], step: int, identity: dict[str, Any]
) -> None:
    """Write a checkpoint in place of the one before, all or nothing.

    Args:
        path: of the file.
        trainers: of the group, after ``step`` steps.
        step: number of steps done.
        identity: of the job.

    Raises:
        UserError: too little disk.
    """
    tensors = {name: tensor.cpu().contiguous() for name, tensor in _tensors_of(trainers).items()}
    check_disk(path.parent, sum(t.nbytes for t in tensors.values()), "a training checkpoint")
    header = {
        "step": step,
        "records": [{"density": trainer.density, "log": trainer.log} for trainer in trainers],
        "identity": _with_versions(identity),
    }
    header["sha256"] = _hash(header, tensors)
    with atomic_path(path) as temporary:
        save_tensors(temporary, tensors, {"checkpoint": json.dumps(header)})


def load_checkpoint(path: Path, trainers: list[Trainer], identity: dict[str, Any]) -> int:
    """Put trainers into the state of a checkpoint, if there is one.

    Returns:
        The number of steps done.

    Raises:
        UserError: it is damaged, or of another job, configuration or version. It stays as it is.
    """
    if not path.exists():
        return 0
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads(file.metadata()["checkpoint"])
            written = header.pop("sha256")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no dict)
    except (SafetensorError, OSError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{path}: expected a checkpoint, found {error}; delete it and run again"
        ) from None
    if written != _hash(header, tensors):
        raise UserError(f"{path}: the checkpoint is damaged; delete it and run again")
    found, expected = header["identity"], json.loads(json.dumps(_with_versions(identity)))
    for key in {**expected, **found}:
        if found.get(key) != expected.get(key):
            raise UserError(
                f"{path}: the checkpoint belongs to other settings: {key} is {found.get(key)!r} "
                f"there, {expected.get(key)!r} here; restore the setting to go on with that "
                "training, or delete the file to start over"
            )
    for name, tensor in _tensors_of(trainers).items():
        tensor.copy_(tensors[name])
    for trainer, record in zip(trainers, header["records"], strict=True):
        trainer.density, trainer.log = record["density"], record["log"]
    return int(header["step"])


def _tensors_of(trainers: list[Trainer]) -> dict[str, Tensor]:
    return {f"{n}.{name}": t for n, one in enumerate(trainers) for name, t in one.tensors.items()}


def _with_versions(identity: dict[str, Any]) -> dict[str, Any]:
    return {"format": FORMAT, "torch": torch.__version__, **identity}


def _hash(header: dict[str, Any], tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
