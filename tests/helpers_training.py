"""Small activations and settings for the tests of training."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from transcoders.activations import Statistics
from transcoders.config import Dictionary, Kind, Site, Training
from transcoders.models import MLPActivations

SITE = Site(model="tiny", layer=1)


@dataclass
class CacheInMemory:
    """Stands in for an ``ActivationCache``: what the trainer reads of one, without files."""

    mlp_in: Tensor
    mlp_out: Tensor

    @property
    def n_tokens(self) -> int:
        return len(self.mlp_in)

    @property
    def d_model(self) -> int:
        return self.mlp_in.shape[1]

    @property
    def statistics(self) -> Statistics:
        return Statistics(
            mlp_in_mean=self.mlp_in.mean(dim=0),
            mlp_out_mean=self.mlp_out.mean(dim=0),
            mlp_in_norm=self.mlp_in.norm(dim=1).mean(),
            mlp_out_norm=self.mlp_out.norm(dim=1).mean(),
        )

    def read(self, start: int, stop: int) -> MLPActivations:
        return MLPActivations(self.mlp_in[start:stop], self.mlp_out[start:stop])


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


def sparse_problem(
    n_tokens: int, d_model: int, n_directions: int, n_active: int, seed: int
) -> tuple[CacheInMemory, Tensor, Tensor]:
    """Inputs and outputs that are the same sparse combination of two sets of unit vectors.

    Returns:
        The activations, and the true directions of the inputs and of the outputs, both
        (n_directions, d_model).
    """
    generator = torch.Generator().manual_seed(seed)

    def unit_vectors() -> Tensor:
        vectors = torch.randn(n_directions, d_model, generator=generator)
        return functional.normalize(vectors, dim=1)

    directions_in, directions_out = unit_vectors(), unit_vectors()
    order = torch.rand(n_tokens, n_directions, generator=generator).argsort(dim=1)
    strength = 0.5 + torch.rand(n_tokens, n_directions, generator=generator)
    combination = torch.where(order < n_active, strength, 0.0)
    cache = CacheInMemory(combination @ directions_in, combination @ directions_out)
    return cache, directions_in, directions_out


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


def entry(kind: Kind, l1_coefficient: float = 0.1) -> Dictionary:
    return Dictionary(
        site=SITE, kind=kind, l1_coefficient=l1_coefficient, headline=True, group="group"
    )
