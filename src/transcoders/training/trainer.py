"""From activations to trained dictionaries.

The loss is that of :mod:`transcoders.training.gradients`, with target = MLP output (transcoder) or
target = input (SAE). Around it, for all dictionaries:

- one seed: the same initialisation, the same batches in the same order;
- Adam; the learning rate warms up linearly and decays linearly to zero; λ₁ warms up linearly;
- decoder rows have unit norm: after each step they are renormalised, and before it the part of
  their gradient parallel to them is removed, since renormalisation would undo it;
- ``b_dec`` starts at the mean of the target;
- with ``normalize_activations: mean_norm``, x and y are scaled to a mean norm of the square root of
  their dimension, and a transcoder's x is centred. Both are affine maps, folded exactly into the
  weights that are saved, with decoder rows still of unit norm (:func:`fold_scaling`).
"""

import io
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional

from transcoders.activations import Statistics
from transcoders.config import Dictionary, Training
from transcoders.dictionaries import SparseDictionary, Weights
from transcoders.errors import UserError
from transcoders.models import MLPActivations
from transcoders.progress import progress_bar
from transcoders.training.batches import ActivationSource, batches, steps_per_epoch
from transcoders.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from transcoders.training.gradients import (
    Gradients,
    Objective,
    dense_gradients,
    sparse_gradients,
)
from transcoders.training.start import fold_scaling, initial_weights, scaling_of


class SiteActivations(ActivationSource, Protocol):
    """What training needs to know of a site besides the stream."""

    d_model: int
    statistics: Statistics


@dataclass(frozen=True)
class TrainedDictionary:
    """A trained dictionary and its training curve."""

    dictionary: SparseDictionary
    training_csv: str
    """Columns ``step, tokens, learning_rate, l1_coefficient, loss, l0, fvu, dead_fraction``; the
    last four over the steps since the row before. A feature counts as dead that fired on none of
    those tokens."""


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
        "dictionaries": [entry.model_dump(mode="json") for entry in entries],
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


class Trainer:
    """One dictionary in training.

    Attributes:
        entry: which dictionary.
        weights: on scaled activations.
        density: share of active features in the batch before; 1 at the start.
        log: the rows of ``training.csv`` so far.
    """

    def __init__(
        self,
        entry: Dictionary,
        source: SiteActivations,
        training: Training,
        n_steps: int,
        seed: int,
        device: str,
    ) -> None:
        self.entry = entry
        self.training = training
        self.n_steps = n_steps
        self.density = 1.0
        self.log: list[dict[str, float]] = []
        statistics = Statistics(*(tensor.to(device) for tensor in source.statistics))
        self.scaling = scaling_of(
            entry.kind, statistics, source.d_model, training.normalize_activations
        )
        self._scaled_mean = self.scaling.target_mean * self.scaling.target_scale
        weights = initial_weights(
            source.d_model,
            training.expansion * source.d_model,
            self._scaled_mean.cpu(),
            seed=seed,
            has_skip=entry.traits.has_skip,
        )
        self.weights = Weights(**{name: t.to(device) for name, t in weights.tensors().items()})
        self._parameters = _as_they_lie(self.weights)
        self._adam = torch.optim.Adam(
            list(self._parameters.values()),
            lr=training.learning_rate,
            betas=training.adam_betas,
            fused=True,
        )
        self._since_log: dict[str, Tensor] = {}

    def step(self, step: int, batch: MLPActivations, *, last_checkpoint: str = "none") -> None:
        """One step of gradient descent on the loss.

        Args:
            step: counted from 0.
            batch: raw activations.
            last_checkpoint: for the message if the loss is not finite.

        Raises:
            UserError: the loss is not finite.
        """
        x, y = self._input_and_target(batch)
        objective = Objective(
            self._l1_coefficient(step),
            self.training.loss_normalization,
            is_sae=not self.entry.traits.is_transcoder,
            k=self.entry.k,
            precision=self.training.precision,
        )
        sparse = self.density < self.training.sparse_below_density
        gradients = (sparse_gradients if sparse else dense_gradients)(self.weights, x, y, objective)
        if not gradients.loss.isfinite():
            raise UserError(
                f"{self.entry.name}: the loss is {gradients.loss.item()} at step {step} (L1 "
                f"coefficient {objective.l1_coefficient:g}, learning rate "
                f"{self._learning_rate(step):g}); lower learning_rate; last good checkpoint: "
                f"{last_checkpoint}"
            )
        self._descend(gradients, self._learning_rate(step))
        self.density = gradients.active.sum().item() / (len(x) * len(gradients.active))
        self._record(step, gradients, y)

    def result(self) -> TrainedDictionary:
        """The dictionary as it stands, on raw activations, with its training curve."""
        folded = fold_scaling(self.weights, self.scaling)
        dictionary = SparseDictionary(folded, self.entry.kind, self.entry.k)
        curve = io.StringIO()
        pd.DataFrame(self.log).to_csv(curve, index=False, float_format="%.6g", lineterminator="\n")
        return TrainedDictionary(dictionary.to("cpu"), curve.getvalue())

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything that a step changes: tensors by name, and the rest."""
        tensors = dict(self._parameters)
        for name, parameter in self._parameters.items():
            for key, value in self._adam.state[parameter].items():
                tensors[f"adam.{key}.{name}"] = value
        tensors |= {f"since_log.{name}": tensor for name, tensor in self._since_log.items()}
        return tensors, {"density": self.density, "log": self.log}

    def restore(self, tensors: dict[str, Tensor], record: dict[str, Any]) -> None:
        """Take over what :meth:`state` gave."""
        for name, parameter in self._parameters.items():
            parameter.copy_(tensors[name])
            for key in ("step", "exp_avg", "exp_avg_sq"):
                value = tensors[f"adam.{key}.{name}"]
                self._adam.state[parameter][key] = value.to(parameter.device)
        prefix = "since_log."
        self._since_log = {
            name.removeprefix(prefix): tensor.to(self.weights.b_dec.device)
            for name, tensor in tensors.items()
            if name.startswith(prefix)
        }
        self.density, self.log = record["density"], record["log"]

    def _input_and_target(self, batch: MLPActivations) -> tuple[Tensor, Tensor]:
        scaling, traits = self.scaling, self.entry.traits
        x = (getattr(batch, traits.reads) - scaling.input_mean) * scaling.input_scale
        if not traits.is_transcoder:
            return x, x
        return x, getattr(batch, traits.imitates) * scaling.target_scale

    def _learning_rate(self, step: int) -> float:
        decay_steps = self.training.decay_fraction * self.n_steps
        warmup = min((step + 1) / max(self.training.warmup_steps, 1), 1.0)
        decay = min((self.n_steps - step) / max(decay_steps, 1.0), 1.0)
        return self.training.learning_rate * warmup * decay

    def _l1_coefficient(self, step: int) -> float:
        warmup_steps = self.training.l1_warmup_fraction * self.n_steps
        warmup = min((step + 1) / max(warmup_steps, 1.0), 1.0)
        return (self.entry.l1_coefficient or 0.0) * warmup

    def _descend(self, gradients: Gradients, learning_rate: float) -> None:
        W_dec, by_parameter = self.weights.W_dec, gradients.by_parameter
        # A feature without an active token has no gradient, so nothing parallel either; its row
        # still moves with Adam's momentum, hence the norms of all rows.
        by_parameter.W_dec.addcmul_(W_dec, gradients.parallel[:, None], value=-1)
        for name, gradient in _as_they_lie(by_parameter).items():
            self._parameters[name].grad = gradient
        for group in self._adam.param_groups:
            group["lr"] = learning_rate
        self._adam.step()
        functional.normalize(W_dec, dim=1, out=W_dec)

    def _record(self, step: int, gradients: Gradients, y: Tensor) -> None:
        sums = self._since_log
        for name, value in (
            ("loss", gradients.loss),
            ("fired", gradients.active),
            ("error", gradients.error.square().sum()),
            ("variance", (y - self._scaled_mean).square().sum()),
            ("steps", torch.ones(())),
        ):
            sums[name] = sums[name] + value if name in sums else value
        if (step + 1) % self.training.log_every_steps and step + 1 < self.n_steps:
            return
        steps = sums["steps"].item()
        self.log.append(
            {
                "step": step + 1,
                "tokens": (step + 1) * self.training.batch_tokens,
                "learning_rate": self._learning_rate(step),
                "l1_coefficient": self._l1_coefficient(step) if self.entry.k is None else math.nan,
                "loss": sums["loss"].item() / steps,
                "l0": sums["fired"].sum().item() / (steps * self.training.batch_tokens),
                "fvu": (sums["error"] / sums["variance"]).item(),
                "dead_fraction": (sums["fired"] == 0).float().mean().item(),
            }
        )
        self._since_log = {}


def _as_they_lie(weights: Weights) -> dict[str, Tensor]:
    """The parameters as contiguous tensors: ``W_enc`` transposed. Adam takes no other at speed."""
    return weights.tensors() | {"W_enc": weights.W_enc.T}


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
