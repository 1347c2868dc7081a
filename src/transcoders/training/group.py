"""A training job: dictionaries of one site or more, on one pass over one stream of batches."""

import sys
from pathlib import Path
from typing import Any, TypeVar

import torch
from tqdm import tqdm

from transcoders.activations import Statistics
from transcoders.config import Dictionary, Kind, Site, Training
from transcoders.dictionaries import SparseDictionary
from transcoders.errors import UserError
from transcoders.models import MLPActivations
from transcoders.progress import progress_bar
from transcoders.training.batches import SiteActivations, batches, steps_per_epoch
from transcoders.training.checkpoint import load_checkpoint, save_checkpoint
from transcoders.training.trainer import TrainedDictionary, Trainer

SideBySide = TypeVar("SideBySide", MLPActivations, Statistics)


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
    """Train dictionaries together, on one pass over one stream of batches.

    Args:
        entries: kinds, L1 coefficients and sites.
        source: the activations of their sites, in the order in which ``entries`` names them first.
        training: everything that the dictionaries share.
        seed: of initialisation and order of the data.
        device: ``cpu`` or ``cuda``.
        checkpoint: where the job saves its state, and from where it goes on. The caller deletes
            the file after saving the result. None saves nothing.
        inputs: what identifies the activations; a checkpoint made with others is refused.

    Returns:
        The trained dictionaries, in the order of ``entries``.

    Raises:
        UserError: fewer activations than a batch, a loss is no longer finite, or the checkpoint is
            damaged or of other settings.
    """
    sites = list(dict.fromkeys(entry.site for entry in entries))
    statistics, n_steps = _by_site(source.statistics, len(sites)), _total_steps(source, training)
    trainers = [
        Trainer(entry, statistics[sites.index(entry.site)], training, n_steps, seed, device)
        for entry in entries
    ]
    by_site = [[one for one in trainers if one.entry.site == site] for site in sites]
    identity = {
        "dictionaries": [entry.model_dump(mode="json", exclude={"headline"}) for entry in entries],
        **training.model_dump(mode="json", exclude={"checkpoint_every_steps"}),
        "seed": seed,
        "device": device,
        **(inputs or {}),
    }
    done = load_checkpoint(checkpoint, trainers, identity) if checkpoint else 0
    size = training.batch_tokens
    with progress_bar(n_steps * size, "training", initial=done * size) as bar:
        stream = batches(source, training, seed=seed, first_step=done)
        for step, halves in enumerate(stream, start=done):
            saved = f"{checkpoint} after step {done}" if checkpoint and done else "none"
            for own, of_site in zip(by_site, _by_site(halves, len(sites)), strict=True):
                batch = MLPActivations(*(tensor.to(device, torch.float32) for tensor in of_site))
                for trainer in own:
                    trainer.step(step, batch, last_checkpoint=saved)
            bar.update(size)
            _show(bar, trainers[0], step)
            if checkpoint and (step + 1) % training.checkpoint_every_steps == 0:
                done = step + 1
                save_checkpoint(checkpoint, trainers, done, identity)
    _warn_of_dead(trainers)
    return [trainer.result() for trainer in trainers]


def _total_steps(source: SiteActivations, training: Training) -> int:
    n_steps = steps_per_epoch(source.n_tokens, training) * training.epochs
    if not n_steps:
        raise UserError(
            f"training.batch_tokens is {training.batch_tokens}, expected at most the "
            f"{source.n_tokens} tokens of activations that there are"
        )
    return n_steps


def _show(bar: "tqdm[Any]", trainer: Trainer, step: int) -> None:
    """Put the numbers of a step beside the bar, if they were logged."""
    if trainer.log and (row := trainer.log[-1])["step"] == step + 1:
        numbers = {"loss": row["loss"], "L0": row["l0"], "dead": row["dead_fraction"]}
        bar.set_postfix(numbers, refresh=False)


def _warn_of_dead(trainers: list[Trainer]) -> None:
    for trainer in trainers:
        if (l0 := trainer.log[-1]["l0"]) < 1:
            print(
                f"{trainer.entry.name}: at the end, only {l0:.2g} features are active for a token; "
                "lower its l1_coefficient, or training.learning_rate",
                file=sys.stderr,
            )


def _by_site(tensors: SideBySide, n_sites: int) -> list[SideBySide]:
    """What stands side by side in the last axis, one site's after the other's."""
    if n_sites == 1:
        return [tensors]
    parts = zip(*(tensor.chunk(n_sites, dim=-1) for tensor in tensors), strict=True)
    return [type(tensors)(*part) for part in parts]


def train_dictionary(
    activations: SiteActivations,
    kind: Kind,
    *,
    l1_coefficient: float | None = None,
    k: int | None = None,
    expansion: int = 8,
    epochs: int = 1,
    learning_rate: float = 4e-3,
    seed: int = 0,
    device: str = "cpu",
) -> SparseDictionary:
    """Train one dictionary, without files or a workflow.

    Training scales inputs and targets to a mean norm of √d_model, and λ₁ has its meaning on that
    scale; the returned weights work on raw activations. ``config/README.md`` explains the other
    settings. A scale file has settings for each kind: before you compare kinds, look for the best
    learning rate of each, as ``benchmarks/README.md`` does.

    Args:
        activations: what the MLP reads and writes.
        kind: ``transcoder``, ``mlp_out_sae``, or another of ``transcoders.config.TRAITS``.
        l1_coefficient: λ₁, for kinds with a ReLU.
        k: active features for each token, for kinds with TopK.
        expansion: features for each dimension of the residual stream.
        epochs: passes over the tokens.
        learning_rate: of Adam, at its height. With few tokens a transcoder wants more (24e-3 with
            0.3 million), an SAE on the MLP's output less (3e-3).
        seed: of the initial weights and of the order of tokens.
        device: ``cpu`` or ``cuda``.

    Raises:
        UserError: fewer tokens than a batch, or the loss is no longer finite.
        pydantic.ValidationError: a setting is out of range, or the kind takes another sparsity.
    """
    training = Training(
        expansion=expansion,
        batch_tokens=256,
        epochs=epochs,
        buffer_tokens=2**17,
        learning_rate=learning_rate,
        warmup_steps=100,
        decay_fraction=0.2,
        l1_warmup_fraction=0.8,
        adam_betas=(0.9, 0.99),
        loss_normalization="none",
        normalize_activations="mean_norm",
        precision="float32",
        sparse_below_density=0.1,
        log_every_steps=100,
        checkpoint_every_steps=1_000_000,
    )
    site = Site(model="any", layer=0)
    entry = Dictionary(kind=kind, l1_coefficient=l1_coefficient, k=k, site=site, group="single")
    [trained] = train_group([entry], activations, training, seed=seed, device=device)
    return trained.dictionary
