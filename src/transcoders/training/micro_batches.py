"""A batch's gradients as means over parts of it, where the whole does not fit in memory.

A step with all features active holds z and its gradient, two tensors of batch × features. Loss and
gradients are means over the batch's tokens, so they are means over equal parts of it too, and z
need only be in memory for one part at a time. What it costs is one copy of the weights' gradients,
which otherwise are made and used a few features at a time.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from transcoders.dictionaries import Weights
from transcoders.training.gradients import FeatureGradients, Gradients, Objective

FEATURES_AT_A_TIME = 4096

GradientsOfBatch = Callable[[Weights, Tensor, Tensor, Objective], Gradients]


def gradients_in_parts(
    gradients: GradientsOfBatch,
    weights: Weights,
    x: Tensor,
    y: Tensor,
    objective: Objective,
    tokens_at_a_time: int | None,
) -> Gradients:
    """The same as ``gradients``, called on equal parts of the batch.

    Args:
        gradients: ``dense_gradients`` or ``sparse_gradients``.
        weights: of the dictionary.
        x: inputs (batch, d_in).
        y: targets (batch, d_out).
        objective: what is minimised.
        tokens_at_a_time: size of the parts, a divisor of the batch; None for one part.
    """
    if tokens_at_a_time is None or tokens_at_a_time >= len(x):
        return gradients(weights, x, y, objective)
    sums = FeatureGradients(
        W_enc=torch.zeros_like(weights.W_enc.T),
        b_enc=torch.zeros_like(weights.b_enc),
        W_dec=torch.zeros_like(weights.W_dec),
    )
    parts = [
        _add_part(sums, gradients(weights, x_here, y_here, objective))
        for x_here, y_here in zip(x.split(tokens_at_a_time), y.split(tokens_at_a_time), strict=True)
    ]
    for total in sums:
        total.div_(len(parts))

    def of_features(start: int, stop: int) -> FeatureGradients:
        return FeatureGradients(*(tensor[start:stop] for tensor in sums))

    def mean(name: str) -> Tensor:
        return torch.stack([getattr(part, name) for part in parts]).mean(dim=0)

    return Gradients(
        loss=mean("loss"),
        error=torch.cat([part.error for part in parts]),
        active=torch.stack([part.active for part in parts]).sum(dim=0),
        parallel=mean("parallel"),
        of_features=of_features,
        b_dec=mean("b_dec"),
        W_skip=None if weights.W_skip is None else mean("W_skip"),
    )


def _add_part(sums: FeatureGradients, part: Gradients) -> Gradients:
    """Add the gradients of features to ``sums``; what is left of ``part`` holds no z any more."""
    for start in range(0, len(sums.b_enc), FEATURES_AT_A_TIME):
        rows = slice(start, min(start + FEATURES_AT_A_TIME, len(sums.b_enc)))
        for total, new in zip(sums, part.of_features(rows.start, rows.stop), strict=True):
            total[rows] += new
    return replace(part, of_features=_added_up)


def _added_up(*_: int) -> FeatureGradients:
    raise RuntimeError("the gradients of a part are in the sums")
