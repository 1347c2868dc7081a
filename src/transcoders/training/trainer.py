"""One dictionary in training.

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
from dataclasses import dataclass
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
from transcoders.training.adam import AdamByRows
from transcoders.training.batches import ActivationSource
from transcoders.training.gradients import (
    Gradients,
    Objective,
    dense_gradients,
    sparse_gradients,
)
from transcoders.training.micro_batches import gradients_in_parts
from transcoders.training.start import fold_scaling, initial_weights, scaling_of

BLOCK_ENTRIES = {"cpu": 2**18, "cuda": 2**25}
"""Numbers in each of the tensors that one block of features takes: 1 MB on a CPU."""


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
        if entry.learning_rate is not None:
            training = training.model_copy(update={"learning_rate": entry.learning_rate})
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
        self._adam = AdamByRows(self._parameters, training.adam_betas)
        self._rows_at_a_time = rows_at_a_time(source.d_model, device)
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
        gradients = gradients_in_parts(
            sparse_gradients if sparse else dense_gradients,
            self.weights, x, y, objective, self.training.micro_batch_tokens,
        )  # fmt: skip
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
        for name in self._parameters:
            tensors[f"first_moment.{name}"] = self._adam.first_moment[name]
            tensors[f"second_moment.{name}"] = self._adam.second_moment[name]
        tensors |= {f"since_log.{name}": tensor for name, tensor in self._since_log.items()}
        return tensors, {"steps": self._adam.steps, "density": self.density, "log": self.log}

    def restore(self, tensors: dict[str, Tensor], record: dict[str, Any]) -> None:
        """Take over what :meth:`state` gave."""
        for name, parameter in self._parameters.items():
            parameter.copy_(tensors[name])
            self._adam.first_moment[name].copy_(tensors[f"first_moment.{name}"])
            self._adam.second_moment[name].copy_(tensors[f"second_moment.{name}"])
        prefix = "since_log."
        self._since_log = {
            name.removeprefix(prefix): tensor.to(self.weights.b_dec.device)
            for name, tensor in tensors.items()
            if name.startswith(prefix)
        }
        self._adam.steps = record["steps"]
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
        W_dec = self.weights.W_dec
        self._adam.begin_step()
        for start in range(0, len(W_dec), self._rows_at_a_time):
            rows = slice(start, start + self._rows_at_a_time)
            here = W_dec[rows]
            of_rows = gradients.of_features(start, start + len(here))
            # A feature without an active token has no gradient, so nothing parallel either; its row
            # still moves with Adam's momentum, hence the norms of all rows.
            parallel = gradients.parallel[rows, None]
            tangent = torch.addcmul(of_rows.W_dec, here, parallel, value=-1)
            by_name = of_rows._replace(W_dec=tangent)._asdict()
            self._adam.update(by_name, learning_rate, rows)
            functional.normalize(here, dim=1, out=here)
        others = {"b_dec": gradients.b_dec}
        if gradients.W_skip is not None:
            others["W_skip"] = gradients.W_skip
        self._adam.update(others, learning_rate)

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


def rows_at_a_time(d_model: int, device: str) -> int:
    """Features whose gradients are made and used together.

    As many as a CPU's cache holds, or as keep a GPU busy without taking much of its memory.
    """
    return max(BLOCK_ENTRIES[device] // d_model // 64, 1) * 64  # whole vectors of any processor


def _as_they_lie(weights: Weights) -> dict[str, Tensor]:
    """The parameters as contiguous tensors: ``W_enc`` transposed. Adam takes no other at speed."""
    return weights.tensors() | {"W_enc": weights.W_enc.T}
