"""Circuits against the real model."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from transcoders.plots.style import BOUND_COLOUR, COLOURS, MARKERS, STYLE

NODE_STYLES = {
    "feature": ("feature", "#0072B2", "o"),
    "head": ("head", "#E69F00", "s"),
    "mlp": ("MLP without a transcoder", "#666666", "^"),
}
PART_TICKS = [0, 1, 8, 64, 512, 4096]


def verification_figure(circuits: dict[str, tuple[pd.DataFrame, pd.DataFrame, int]]) -> Figure:
    """Circuits against the real model, with a row for each circuit.

    Left: how far the target falls when a node is ablated, against the node's attribution. Right:
    how much of the target is left with only the most influential parts, and without them.

    Args:
        circuits: ``ablation.csv``, ``faithfulness.csv`` and the number of parts of each, by name.
    """
    with plt.style.context(STYLE):
        n, rows = len(circuits), circuits.items()
        figure, axes = plt.subplots(n, 2, figsize=(7.2, 3.0 * n), squeeze=False, layout="tight")
        for (name, (effects, curve, n_parts)), (left, right) in zip(rows, axes, strict=True):
            for kind, (label, colour, marker) in NODE_STYLES.items():
                of_kind = effects[effects["kind"] == kind]
                left.scatter(
                    of_kind["attribution"], of_kind["effect"],
                    s=18, color=colour, marker=marker, label=label, alpha=0.8, linewidth=0,
                )  # fmt: skip
            left.axline((0, 0), slope=1, color=BOUND_COLOUR, linestyle="--", linewidth=0.8)
            left.set(title=name, xlabel="attribution", ylabel="fall of the target when ablated")
            left.legend(loc="upper left", fontsize="x-small")
            for column, label, kind in (
                ("faithfulness", "only these", "transcoder"),
                ("remaining", "all but these", "mlp_out_sae"),
            ):
                right.plot(
                    curve["n_nodes"], curve[column],
                    color=COLOURS[kind], marker=MARKERS[kind], label=label,
                )  # fmt: skip
            for level in (0, 1):
                right.axhline(level, color=BOUND_COLOUR, linestyle=":", linewidth=0.8)
            right.axvline(
                n_parts, color=BOUND_COLOUR, linestyle="--", linewidth=0.8,
                label=f"the circuit found: {n_parts} parts",
            )  # fmt: skip
            right.set_xscale("symlog", base=2, linthresh=1)
            right.set_xlim(-0.5, 1.5 * curve["n_nodes"].max())
            right.set_xticks(PART_TICKS, [f"{n:,}" for n in PART_TICKS])
            right.xaxis.set_minor_locator(NullLocator())
            right.set(xlabel="parts, the most influential first", ylabel="share of the target left")
            right.legend(fontsize="x-small", frameon=True, framealpha=0.9, edgecolor="none")
    return figure
