"""Small activations and settings for the tests of training."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from transcoders.activations import ActivationsInMemory
from transcoders.config import TRAITS, Dictionary, Kind, Site, Training
from transcoders.dictionaries.loss import Loss, loss_and_gradients
from transcoders.models import MLPActivations, mlp_activations
from transcoders.training import batches
from transcoders.training import group as group_module
from transcoders.training import trainer as trainer_module
from transcoders.training.trainer import TrainedDictionary, Trainer

SITE = Site(model="tiny", layer=1)
ALL_KINDS: tuple[Kind, ...] = tuple(TRAITS)


class CacheInMemory(ActivationsInMemory):
    """Stands in for an ``ActivationCache``."""

    read_ahead = True


def random_cache(n_tokens: int = 256, d_model: int = 8, seed: int = 0) -> CacheInMemory:
    """Activations with a mean and a scale of their own, so that ignoring either shows."""
    generator = torch.Generator().manual_seed(seed)
    mlp_in = 3.0 * torch.randn(n_tokens, d_model, generator=generator) + 1.0
    mlp_out = 0.2 * torch.randn(n_tokens, d_model, generator=generator) - 0.5
    return CacheInMemory(mlp_in, mlp_out)


def numbered_cache(n_tokens: int) -> CacheInMemory:
    """Activations from which a token's position in the cache can be read back."""
    numbers = torch.arange(n_tokens, dtype=torch.float32)[:, None].repeat(1, 2)
    return CacheInMemory(numbers, -numbers)


def settings(**changes: object) -> Training:
    """Training without warm-ups, decay or scaling, unless ``changes`` ask for them."""
    values: dict[str, object] = {
        "expansion": 4,
        "batch_tokens": 32,
        "epochs": 1,
        "buffer_tokens": 128,
        "learning_rate": 1e-2,
        "warmup_steps": 0,
        "decay_fraction": 0.0,
        "l1_warmup_fraction": 0.0,
        "adam_betas": (0.9, 0.999),
        "loss_normalization": "none",
        "normalize_activations": "none",
        "precision": "float32",
        "sparse_below_density": 0.5,
        "log_every_steps": 1,
        "checkpoint_every_steps": 1000,
    }
    return Training.model_validate(values | changes)


def entry(kind: Kind, l1_coefficient: float = 0.1, k: int = 4) -> Dictionary:
    """A dictionary to train, with whichever of the two numbers its kind takes."""
    sparsity = {"k": k} if TRAITS[kind].is_topk else {"l1_coefficient": l1_coefficient}
    return Dictionary(site=SITE, kind=kind, headline=True, group="group", **sparsity)


def trainer_of(kind: Kind, cache: CacheInMemory, training: Training) -> Trainer:
    """To be trained for ten steps."""
    return Trainer(entry(kind), cache.statistics, training, n_steps=10, seed=0, device="cpu")


def saved(trained: TrainedDictionary) -> tuple[dict[str, bytes], str]:
    """Every byte of a result."""
    tensors = trained.dictionary.state_dict().items()
    return {name: tensor.numpy().tobytes() for name, tensor in tensors}, trained.training_csv


def watch_ways(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A list that grows by ``dense`` or ``sparse`` with every loss."""
    ways: list[str] = []

    def watched(*arguments: Any, sparse: bool, **options: Any) -> Loss:
        ways.append("sparse" if sparse else "dense")
        return loss_and_gradients(*arguments, sparse=sparse, **options)

    monkeypatch.setattr(trainer_module, "loss_and_gradients", watched)
    return ways


class KilledError(Exception):
    """Stands for a kill in the middle of the work."""


class Passes:
    """Counts the passes of models. It can kill one of them, or exaggerate what they give."""

    def __init__(self) -> None:
        self.done, self.last, self.factor = 0, 0, 1.0

    def __call__(self, *arguments: Any) -> dict[int, MLPActivations]:
        """In place of ``mlp_activations``."""
        self.done += 1
        if self.done == self.last:
            raise KilledError
        passed = mlp_activations(*arguments).items()
        return {n: MLPActivations(both.mlp_in, both.mlp_out * self.factor) for n, both in passed}

    @contextmanager
    def killed_at(self, number: int) -> Iterator[None]:
        """The block is killed at this pass; what comes after it is counted anew."""
        self.done, self.last = 0, number
        with pytest.raises(KilledError):
            yield
        self.done, self.last = 0, 0


def count_steps(monkeypatch: pytest.MonkeyPatch, killed_after: int | None = None) -> list[int]:
    """The numbers of the steps of runs from here on; after ``killed_after``, the run is killed."""
    steps: list[int] = []

    def counted(*arguments: Any, first_step: int, **options: Any) -> Iterator[MLPActivations]:
        stream = batches(*arguments, first_step=first_step, **options)
        for number, batch in enumerate(stream, start=first_step):
            yield batch
            steps.append(number)
            if len(steps) == killed_after:
                raise KilledError

    monkeypatch.setattr(group_module, "batches", counted)
    return steps
