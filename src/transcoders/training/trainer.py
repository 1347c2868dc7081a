"""From cached activations to trained dictionaries.

The loss of a token with input x, target y and features z = ReLU(x W_enc + b_enc) is

    ||y - (z W_dec + b_dec)||²  +  λ₁ ||z||₁                         (paper, equations 4 and 5)

with target = MLP output (transcoder) or target = input (SAE). Around it, for all dictionaries:

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
from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from transcoders.activations import ActivationCache, Statistics
from transcoders.config import Dictionary, Training
from transcoders.dictionaries import SparseDictionary, Weights
from transcoders.errors import UserError
from transcoders.models import MLPActivations
from transcoders.progress import progress_bar
from transcoders.training.batches import batches, steps_per_epoch
from transcoders.training.start import fold_scaling, initial_weights, scaling_of


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
    cache: ActivationCache,
    training: Training,
    *,
    seed: int,
    device: str = "cpu",
) -> list[TrainedDictionary]:
    """Train dictionaries of one site together, on one pass over one stream of batches.

    Args:
        entries: kinds and L1 coefficients.
        cache: the site's activations.
        training: everything that the dictionaries share.
        seed: of initialisation and order of the data.
        device: ``cpu`` or ``cuda``.

    Returns:
        The trained dictionaries, in the order of ``entries``.

    Raises:
        UserError: a loss is no longer finite.
    """
    n_steps = steps_per_epoch(cache.n_tokens, training) * training.epochs
    trainers = [Trainer(entry, cache, training, n_steps, seed, device) for entry in entries]
    with progress_bar(n_steps * training.batch_tokens, "training") as bar:
        for step, batch in enumerate(batches(cache, training, seed=seed)):
            mlp_in, mlp_out = (tensor.to(device, torch.float32) for tensor in batch)
            for trainer in trainers:
                trainer.step(step, MLPActivations(mlp_in, mlp_out))
            bar.update(training.batch_tokens)
            if (step + 1) % training.log_every_steps == 0:
                shown = trainers[0].log[-1]
                bar.set_postfix(loss=shown["loss"], L0=shown["l0"], refresh=False)
    return [trainer.result() for trainer in trainers]


def reconstruction_loss(
    error: Float[Tensor, "batch d_out"], target: Float[Tensor, "batch d_out"], normalization: str
) -> Float[Tensor, ""]:
    """The first term of the loss.

    ``none`` is the squared norm of the error, meaned over the batch. ``released`` is what the
    authors' code computes and what the paper's λ₁ values belong to: the squared error divided by
    the target's norm (not its square), meaned over batch *and* outputs.
    """
    squared = error.square()
    if normalization == "none":
        return squared.sum(dim=1).mean()
    return (squared / target.norm(dim=1, keepdim=True)).mean()


class Trainer:
    """One dictionary in training."""

    def __init__(
        self,
        entry: Dictionary,
        cache: ActivationCache,
        training: Training,
        n_steps: int,
        seed: int,
        device: str,
    ) -> None:
        self.entry = entry
        self.training = training
        self.n_steps = n_steps
        self.log: list[dict[str, float]] = []
        statistics = Statistics(*(tensor.to(device) for tensor in cache.statistics))
        self.scaling = scaling_of(
            entry.kind, statistics, cache.d_model, training.normalize_activations
        )
        self._scaled_mean = self.scaling.target_mean * self.scaling.target_scale
        n_features = training.expansion * cache.d_model
        weights = initial_weights(cache.d_model, n_features, self._scaled_mean.cpu(), seed=seed)
        self.weights = Weights(
            **{name: t.to(device).requires_grad_() for name, t in vars(weights).items()}
        )
        self._adam = torch.optim.Adam(
            list(vars(self.weights).values()),
            lr=training.learning_rate,
            betas=training.adam_betas,
            fused=True,
        )
        self._since_log: dict[str, Tensor] = {}

    def step(self, step: int, batch: MLPActivations) -> None:
        """One step of gradient descent on the loss.

        Raises:
            UserError: the loss is not finite.
        """
        x, y = self._input_and_target(batch)
        weights, l1_coefficient = self.weights, self._l1_coefficient(step)
        learning_rate = self._learning_rate(step)
        b_enc = weights.b_enc
        if self.entry.kind != "transcoder":  # an SAE reads x - b_dec
            b_enc = b_enc - weights.b_dec @ weights.W_enc
        z = torch.relu(torch.addmm(b_enc, x, weights.W_enc))
        error = y - torch.addmm(weights.b_dec, z, weights.W_dec)
        loss = reconstruction_loss(error, y, self.training.loss_normalization)
        loss = loss + l1_coefficient * z.sum(dim=1).mean()
        if not loss.isfinite():
            raise UserError(
                f"{self.entry.name}: the loss is {loss.item()} at step {step} (L1 coefficient "
                f"{l1_coefficient:g}, learning rate {learning_rate:g}); lower learning_rate"
            )
        self._adam.zero_grad()
        loss.backward()
        self._remove_parallel_gradient()
        for group in self._adam.param_groups:
            group["lr"] = learning_rate
        self._adam.step()
        with torch.no_grad():
            functional.normalize(weights.W_dec, dim=1, out=weights.W_dec)
        self._record(step, loss, z, error, y)

    def result(self) -> TrainedDictionary:
        """The dictionary as it stands, on raw activations, with its training curve."""
        trained = Weights(**{name: t.detach() for name, t in vars(self.weights).items()})
        dictionary = SparseDictionary(fold_scaling(trained, self.scaling), self.entry.kind)
        curve = io.StringIO()
        pd.DataFrame(self.log).to_csv(curve, index=False, float_format="%.6g", lineterminator="\n")
        return TrainedDictionary(dictionary.to("cpu"), curve.getvalue())

    def _input_and_target(self, batch: MLPActivations) -> tuple[Tensor, Tensor]:
        scaling = self.scaling
        read = batch.mlp_out if self.entry.kind == "mlp_out_sae" else batch.mlp_in
        x = (read - scaling.input_mean) * scaling.input_scale
        return x, batch.mlp_out * scaling.target_scale if self.entry.kind == "transcoder" else x

    def _learning_rate(self, step: int) -> float:
        decay_steps = self.training.decay_fraction * self.n_steps
        warmup = min((step + 1) / max(self.training.warmup_steps, 1), 1.0)
        decay = min((self.n_steps - step) / max(decay_steps, 1.0), 1.0)
        return self.training.learning_rate * warmup * decay

    def _l1_coefficient(self, step: int) -> float:
        warmup_steps = self.training.l1_warmup_fraction * self.n_steps
        return self.entry.l1_coefficient * min((step + 1) / max(warmup_steps, 1.0), 1.0)

    @torch.no_grad()
    def _remove_parallel_gradient(self) -> None:
        W_dec, gradient = self.weights.W_dec, self.weights.W_dec.grad
        assert gradient is not None
        gradient.addcmul_(W_dec, (gradient * W_dec).sum(dim=1, keepdim=True), value=-1)

    @torch.no_grad()
    def _record(self, step: int, loss: Tensor, z: Tensor, error: Tensor, y: Tensor) -> None:
        active = z > 0
        for name, value in (
            ("loss", loss),
            ("fired", active.sum(dim=0)),
            ("error", error.square().sum()),
            ("variance", (y - self._scaled_mean).square().sum()),
            ("steps", torch.ones(())),
        ):
            sums = self._since_log
            sums[name] = sums[name] + value if name in sums else value.detach()
        if (step + 1) % self.training.log_every_steps and step + 1 < self.n_steps:
            return
        sums = self._since_log
        steps = sums["steps"].item()
        self.log.append(
            {
                "step": step + 1,
                "tokens": (step + 1) * self.training.batch_tokens,
                "learning_rate": self._learning_rate(step),
                "l1_coefficient": self._l1_coefficient(step),
                "loss": sums["loss"].item() / steps,
                "l0": sums["fired"].sum().item() / (steps * self.training.batch_tokens),
                "fvu": (sums["error"] / sums["variance"]).item(),
                "dead_fraction": (sums["fired"] == 0).float().mean().item(),
            }
        )
        self._since_log = {}
