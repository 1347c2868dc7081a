"""One dictionary in training.

The loss is :func:`transcoders.dictionaries.loss.loss_and_gradients`, with target = MLP output
(transcoder) or target = input (SAE). Around it, for all dictionaries:

- one seed: the same initialisation, the same batches in the same order;
- Adam; the learning rate warms up linearly and decays linearly to zero; λ₁ warms up linearly;
- decoder rows have unit norm (:class:`transcoders.training.adam.DictionaryAdam`);
- ``b_dec`` starts at the mean of the target;
- with ``normalize_activations: mean_norm``, x and y are scaled to a mean norm of the square root of
  their dimension, and a transcoder's x is centred. Both are affine maps, folded exactly into the
  weights that are saved, with decoder rows still of unit norm (:func:`fold_scaling`).
"""

import io
import math
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from transcoders.activations import Statistics
from transcoders.config import Dictionary, Training
from transcoders.dictionaries import SparseDictionary
from transcoders.dictionaries.loss import Loss, loss_and_gradients
from transcoders.errors import UserError
from transcoders.models import MLPActivations
from transcoders.training.adam import DictionaryAdam
from transcoders.training.initialization import fold_scaling, initial_dictionary, scaling_of


@dataclass(frozen=True)
class TrainedDictionary:
    """A trained dictionary and its training curve."""

    dictionary: SparseDictionary
    training_csv: str
    """Columns ``step, tokens, learning_rate, l1_coefficient, loss, l0, fvu, dead_fraction``; the
    last four over the steps since the row before. A feature is dead if it fired on none of those
    tokens."""


class Trainer:
    """One dictionary in training.

    Attributes:
        entry: which dictionary.
        dictionary: on scaled activations.
        density: share of active features in the batch before; at first 1, or k / n_features for
            TopK.
        log: the rows of ``training.csv`` so far.
    """

    def __init__(
        self,
        entry: Dictionary,
        statistics: Statistics,
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
        d_model = len(statistics.mlp_in_mean)
        statistics = Statistics(*(tensor.to(device) for tensor in statistics))
        self.scaling = scaling_of(entry.kind, statistics, d_model, training.normalize_activations)
        self._scaled_mean = self.scaling.target_mean * self.scaling.target_scale
        n_features = training.expansion * d_model
        self.dictionary = initial_dictionary(
            entry.kind, d_model, n_features, self._scaled_mean.cpu(), seed=seed, k=entry.k
        ).to(device)
        self.density = 1.0 if entry.k is None else entry.k / n_features
        self.log: list[dict[str, float]] = []
        self._adam = DictionaryAdam(self.dictionary, training.adam_betas)
        b_dec = self.dictionary.b_dec
        self._since_log = {name: b_dec.new_zeros(()) for name in ("loss", "error", "variance")}
        self._since_log["fired"] = b_dec.new_zeros(n_features, dtype=torch.int64)

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
        found = loss_and_gradients(
            self.dictionary, x, y, mlp_in=self._input_of_skip(batch),
            l1_coefficient=self._l1_coefficient(step),
            normalization=self.training.loss_normalization,
            sparse=self.density < self.training.sparse_below_density,
        )  # fmt: skip
        if not found.loss.isfinite():
            if self.training.loss_normalization == "released" and not y.norm(dim=1).all():
                raise UserError(
                    f"{self.entry.name}: expected targets of a norm above 0, by which the loss of "
                    f"the released code divides, found one of norm 0 at step {step}; set "
                    "training.loss_normalization to none"
                )
            raise UserError(
                f"{self.entry.name}: the loss is {found.loss.item()} at step {step} (L1 "
                f"coefficient {self._l1_coefficient(step):g}, learning rate "
                f"{self._learning_rate(step):g}); lower learning_rate; last good checkpoint: "
                f"{last_checkpoint}"
            )
        self._adam.step(step, self._learning_rate(step), found.gradients, found.rows)
        self.density = found.active.sum().item() / (len(x) * len(found.active))
        self._record(step, found, y)

    def result(self) -> TrainedDictionary:
        """The dictionary as it stands, on raw activations, with its training curve."""
        folded = fold_scaling(self.dictionary, self.scaling)
        curve = io.StringIO()
        pd.DataFrame(self.log).to_csv(curve, index=False, float_format="%.6g", lineterminator="\n")
        return TrainedDictionary(folded.to("cpu"), curve.getvalue())

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All tensors that a step changes, by name."""
        adam = self._adam
        moments = {"first_moment": adam.first_moment, "second_moment": adam.second_moment}
        return {
            **adam.parameters,
            **{f"{key}.{name}": t for key, of in moments.items() for name, t in of.items()},
            **{f"since_log.{name}": tensor for name, tensor in self._since_log.items()},
        }

    def _input_and_target(self, batch: MLPActivations) -> tuple[Tensor, Tensor]:
        scaling, traits = self.scaling, self.entry.traits
        x = (getattr(batch, traits.reads) - scaling.input_mean) * scaling.input_scale
        if not traits.is_transcoder:
            return x, x
        return x, getattr(batch, traits.imitates) * scaling.target_scale

    def _input_of_skip(self, batch: MLPActivations) -> Tensor | None:
        """What a skip reads, where it is not what the encoder reads."""
        if not self.entry.traits.has_skip or self.entry.traits.is_transcoder:
            return None
        return (batch.mlp_in - self.scaling.mlp_in_mean) * self.scaling.mlp_in_scale

    def _learning_rate(self, step: int) -> float:
        decay_steps = self.training.decay_fraction * self.n_steps
        warmup = min((step + 1) / max(self.training.warmup_steps, 1), 1.0)
        decay = min((self.n_steps - step) / max(decay_steps, 1.0), 1.0)
        return self.training.learning_rate * warmup * decay

    def _l1_coefficient(self, step: int) -> float:
        warmup_steps = self.training.l1_warmup_fraction * self.n_steps
        warmup = min((step + 1) / max(warmup_steps, 1.0), 1.0)
        return (self.entry.l1_coefficient or 0.0) * warmup

    def _record(self, step: int, found: Loss, y: Tensor) -> None:
        sums = self._since_log
        sums["loss"] += found.loss
        sums["error"] += found.squared_error
        sums["variance"] += (y - self._scaled_mean).square().sum()
        sums["fired"] += found.active
        if (step + 1) % self.training.log_every_steps and step + 1 < self.n_steps:
            return
        steps = step + 1 - (self.log[-1]["step"] if self.log else 0)
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
        for tensor in sums.values():
            tensor.zero_()
