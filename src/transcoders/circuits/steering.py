"""Does the target move with a node as attribution predicts?

A node's output is scaled in the real model: ``(factor - 1)`` times its output (for a feature, its
activation times its decoder row) is added to the residual stream, at its token. Attribution is the
derivative of the target by that factor in the frozen model, so it predicts a change of ``(factor -
1)`` times the node's attribution over all paths. In the real model, attention, normalisation and
the set of active features follow.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from transcoders.circuits.ablation import changes_when_scaled
from transcoders.circuits.notation import Node
from transcoders.circuits.replacement import LocalReplacementModel
from transcoders.circuits.vectors import Target

FACTORS = (0, 2, -1)


def steering(
    local: LocalReplacementModel, target: Target, nodes: Sequence[Node], effects: pd.DataFrame
) -> pd.DataFrame:
    """Predicted and real changes of the target with each node scaled by each of some factors.

    Args:
        local: of the prompt.
        target: what is explained.
        nodes: features, heads and MLPs.
        effects: of :func:`~transcoders.circuits.ablation.ablation_effects` for these nodes, which
            are the changes for a factor of 0.

    Returns:
        Columns ``node``, ``kind``, ``factor``, ``predicted`` and ``change``.
    """
    changes = {
        factor: changes_when_scaled(local, target, nodes, factor) if factor else -effects["effect"]
        for factor in FACTORS
    }
    tables = (
        effects[["node", "kind"]].assign(
            factor=factor, predicted=(factor - 1) * effects["attribution"], change=change
        )
        for factor, change in changes.items()
    )
    return pd.concat(tables, ignore_index=True)


class Agreement(NamedTuple):
    """How real changes follow predicted ones."""

    n: int
    """Nodes, each counted once for each factor."""
    correlation: float
    """Pearson's; NaN for fewer than three, or if either does not vary."""
    slope: float
    """Of the line through the origin: a factor of 1 changes nothing."""


def agreement(steered: pd.DataFrame) -> Agreement:
    """Correlation and slope of real on predicted changes, over the rows of :func:`steering`."""
    predicted, change = steered["predicted"].to_numpy(), steered["change"].to_numpy()
    enough = len(steered) >= 3 and predicted.std() > 0 and change.std() > 0
    correlation = float(np.corrcoef(predicted, change)[0, 1]) if enough else float("nan")
    squares = float(predicted @ predicted)
    slope = float(predicted @ change) / squares if squares else float("nan")
    return Agreement(len(steered), correlation, slope)
