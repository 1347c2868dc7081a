"""Does the target move with a node as attribution predicts?

A node's output is scaled in the real model: ``(factor - 1)`` times its output (for a feature, its
activation times its decoder row) is added to the residual stream, at its token. Attribution is the
derivative of the target with respect to that factor in the frozen model. So it predicts a change of
``(factor - 1)`` times the node's attribution over all paths. In the real model, attention,
normalisation and the set of active features change too.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from transcoders.circuits.ablation import changes_when_scaled
from transcoders.circuits.notation import Node
from transcoders.circuits.replacement import LocalReplacementModel
from transcoders.circuits.vectors import Target
from transcoders.circuits.verify import NodeValues

FACTORS = (0, 2, -1)


def steering(
    local: LocalReplacementModel, target: Target, totals: NodeValues, nodes: Sequence[Node]
) -> pd.DataFrame:
    """Predicted and real changes of the target when each node is scaled by each of several factors.

    Args:
        local: of the prompt.
        target: what is explained.
        totals: its attributions over all paths.
        nodes: features, heads and MLPs.

    Returns:
        Columns ``node``, ``kind``, ``factor``, ``predicted`` and ``change``.
    """
    attributions: dict[Node, float] = {}
    for kind, layer in dict.fromkeys((node.kind, node.layer) for node in nodes):
        values = totals[kind, layer]  # asked for once: those of a long prompt are made anew
        here = [node for node in nodes if (node.kind, node.layer) == (kind, layer)]
        attributions |= {node: values[node.place].item() for node in here}
    names = {"node": [str(node) for node in nodes], "kind": [node.kind for node in nodes]}
    tables = (
        pd.DataFrame(names).assign(
            factor=factor,
            predicted=[(factor - 1) * attributions[node] for node in nodes],
            change=changes_when_scaled(local, target, nodes, factor),
        )
        for factor in FACTORS
    )
    return pd.concat(tables, ignore_index=True)


def ablation_effects(steered: pd.DataFrame) -> pd.DataFrame:
    """What the target loses without each node's output, beside the node's attribution.

    Args:
        steered: of :func:`steering`. The rows with factor 0 count: there, a node has no output.

    Returns:
        Columns ``node``, ``kind``, ``attribution`` (over all paths) and ``effect``.
    """
    removed = steered[steered["factor"] == 0]
    return removed[["node", "kind"]].assign(
        attribution=-removed["predicted"], effect=-removed["change"]
    )


def rank_correlation(effects: pd.DataFrame) -> float:
    """Spearman's correlation of attribution with effect; NaN for fewer than three nodes."""
    if len(effects) < 3:
        return float("nan")
    return float(stats.spearmanr(effects["attribution"], effects["effect"]).statistic)


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
