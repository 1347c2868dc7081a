"""A training job: dictionaries of one site, on one pass over one stream of batches."""

import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from transcoders.config import Dictionary, Training
from transcoders.errors import UserError
from transcoders.models import MLPActivations
from transcoders.progress import progress_bar
from transcoders.training.batches import batches, steps_per_epoch
from transcoders.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from transcoders.training.trainer import SiteActivations, TrainedDictionary, Trainer


def train_group(
    entries: list[Dictionary],
    source: SiteActivations,
    training: Training,
    *,
    seed: int,
    device: str = "cpu",
    checkpoint: Path | None = None,
    inputs: dict[str, Any] | None = None,
) -> list[TrainedDictionary]:
    """Train dictionaries of one site together, on one pass over one stream of batches.

    Args:
        entries: kinds and L1 coefficients.
        source: the site's activations.
        training: everything that the dictionaries share.
        seed: of initialisation and order of the data.
        device: ``cpu`` or ``cuda``.
        checkpoint: where to save what is needed to go on after a kill, and to go on from if it is
            there. None to save nothing. Whoever saves the result deletes it.
        inputs: what identifies the activations; a checkpoint made with others is refused.

    Returns:
        The trained dictionaries, in the order of ``entries``.

    Raises:
        UserError: fewer activations than a batch, a loss is no longer finite, or the checkpoint is
            damaged or of other settings.
    """
    n_steps = steps_per_epoch(source.n_tokens, training) * training.epochs
    if not n_steps:
        raise UserError(
            f"training.batch_tokens is {training.batch_tokens}, expected at most the "
            f"{source.n_tokens} tokens of activations that there are"
        )
    trainers = [Trainer(entry, source, training, n_steps, seed, device) for entry in entries]
    identity = {
        "dictionaries": [entry.model_dump(mode="json", exclude={"headline"}) for entry in entries],
        **training.model_dump(mode="json", exclude={"checkpoint_every_steps"}),
        "seed": seed,
        "device": device,
        **(inputs or {}),
    }
    saved = load_checkpoint(checkpoint, identity) if checkpoint else None
    if saved:
        for number, (trainer, record) in enumerate(zip(trainers, saved.records, strict=True)):
            trainer.restore(_of_trainer(saved.tensors, number), record)
    done = saved.step if saved else 0
    size = training.batch_tokens
    waited, began = 0.0, time.monotonic()
    with progress_bar(n_steps * size, "training", initial=done * size) as bar:
        stream = batches(source, training, seed=seed, first_step=done)
        for step in range(done, n_steps):
            before = time.monotonic()
            batch = MLPActivations(*(t.to(device, torch.float32) for t in next(stream)))
            waited += time.monotonic() - before
            for trainer in trainers:
                trainer.step(step, batch, last_checkpoint=_describe(checkpoint, done))
            bar.update(size)
            if trainers[0].log and trainers[0].log[-1]["step"] == step + 1:
                shown = trainers[0].log[-1]
                share = waited / (time.monotonic() - began)
                bar.set_postfix(
                    loss=shown["loss"], L0=shown["l0"], dead=shown["dead_fraction"],
                    waited=f"{share:.1%}", refresh=False,
                )  # fmt: skip
            if checkpoint and (step + 1) % training.checkpoint_every_steps == 0:
                done = step + 1
                save_checkpoint(checkpoint, _checkpoint_of(trainers, done), identity)
    return [trainer.result() for trainer in trainers]


def _checkpoint_of(trainers: list[Trainer], step: int) -> Checkpoint:
    states = [trainer.state() for trainer in trainers]
    tensors = {
        f"{number}.{name}": tensor
        for number, (of_one, _) in enumerate(states)
        for name, tensor in of_one.items()
    }
    return Checkpoint(step, tensors, [record for _, record in states])


def _of_trainer(tensors: dict[str, Tensor], number: int) -> dict[str, Tensor]:
    prefix = f"{number}."
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def _describe(checkpoint: Path | None, step: int) -> str:
    return f"{checkpoint} after step {step}" if checkpoint and step else "none"
