"""Steps of our trainer at a given size and sparsity. As a script, it matches saelens_peer.py.

    .venv/bin/python benchmarks/our_peer.py '{"d_model": 768, ...}'

A step is what a training job does between two batches: the next batch from the shuffled stream, to
float32, loss and gradients, Adam, projection and telemetry, in the order of `train_group`, with the
settings of the laptop scale except for the sizes and the learning rate.
"""

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from training_peers import (
    BATCHES,
    CALIBRATION_TOKENS,
    LEARNING_RATE,
    Size,
    activations,
    bias_for,
    run_peer,
)

from transcoders.activations import Statistics
from transcoders.config import Dictionary, Resources, Site, load_scale
from transcoders.layout import Layout
from transcoders.models import MLPActivations
from transcoders.process import prepare_process
from transcoders.training import Trainer, batches

REPOSITORY = Path(__file__).parents[1]
EPOCHS = 10_000


def prepare(threads: int) -> None:
    """Set what the command line sets for a whole process before it trains."""
    resources = Resources(threads=threads, mem_mb=1, runtime=1)
    prepare_process(threads, resources, keep_freed_memory=True)


class InMemory:
    """Stands in for an ``ActivationCache``.

    Inputs and outputs are the same tensor, so it holds what an SAE needs and no more; a step still
    pays for gathering both, as in a training job.
    """

    read_ahead = True

    def __init__(self, tokens: Tensor) -> None:
        self.tokens = tokens
        self.n_tokens, d_model = tokens.shape
        mean, norm = torch.zeros(d_model), torch.tensor(math.sqrt(d_model))
        self.statistics = Statistics(mean, mean, norm, norm)

    def read(self, start: int, stop: int) -> MLPActivations:
        """Tokens ``start`` to ``stop`` (exclusive)."""
        return MLPActivations(self.tokens[start:stop], self.tokens[start:stop])


class Ours:
    """A job that trains one MLP-out SAE, step by step."""

    def __init__(self, size: Size) -> None:
        source = InMemory(activations(size))
        self.training = load_scale(REPOSITORY / Layout("laptop").config).training.model_copy(
            update={
                "expansion": size.n_features // size.d_model,
                "batch_tokens": size.batch,
                "buffer_tokens": BATCHES * size.batch,
                "epochs": EPOCHS,
                "learning_rate": LEARNING_RATE,
            }
        )
        entry = Dictionary(
            site=Site(model="any", layer=0), kind="mlp_out_sae", l1_coefficient=1.0, group="any"
        )
        self.trainer = Trainer(entry, source.statistics, self.training, BATCHES * EPOCHS, 0, "cpu")
        self._stream = batches(source, self.training, seed=0)
        self._done = 0
        self._sample = source.tokens[:CALIBRATION_TOKENS].float()
        self.set_l0(size.l0)

    def set_l0(self, l0: float) -> None:
        """Set one bias for all features."""
        with torch.no_grad():
            products = self._sample @ self.trainer.dictionary.W_enc
            self.trainer.dictionary.b_enc.fill_(bias_for(products, l0))

    def choose(self, path: str) -> None:
        """Make all coming steps dense, or sparse."""
        below = {"dense": 0.0, "sparse": 1.0}[path]
        self.trainer.training = self.training.model_copy(update={"sparse_below_density": below})
        self.trainer.density = 0.0

    @property
    def is_sparse(self) -> bool:
        """Whether the next step computes with active entries only."""
        return self.trainer.density < self.trainer.training.sparse_below_density

    @property
    def l0(self) -> float:
        """Active features for each token in the last step."""
        return self.trainer.density * len(self.trainer.dictionary.b_enc)

    def batch(self) -> MLPActivations:
        """Take the next batch from the stream, in float32."""
        return MLPActivations(*(tensor.to("cpu", torch.float32) for tensor in next(self._stream)))

    def step(self) -> None:
        """One whole step."""
        self.trainer.step(self._done, self.batch())
        self._done += 1


def train(size: Size, mark: Callable[[], None]) -> float:
    prepare(size.threads)
    ours = Ours(size)
    for _ in range(size.warm_up + size.steps):
        mark()
        ours.step()
    mark()
    return ours.l0


if __name__ == "__main__":
    run_peer(train)
