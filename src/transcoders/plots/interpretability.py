"""Automatic measures of interpretability, and blind studies."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from transcoders.plots.style import BOUND_COLOUR, COLOURS, LABELS, MARKERS, STYLE

MEASURES = {
    "single_token_share": "single-token share\n(1: one token alone)",
    "token_entropy": "token entropy (bits)\n(0: one token alone)",
    "rule_accuracy": "accuracy of a rule\n(0.5: guessing)",
}
BASELINE = "random_directions"
METHODS = {
    "direct": ("direct", "#56B4E9", "o"),
    "layer 0, linear": ("through 10 features of layer 0", "#E69F00", "s"),
    "layer 0": ("through all of layer 0", "#0072B2", "D"),
    "heads": ("through heads, earlier tokens", "#009E73", "^"),
}
SCORES = {"precision": "precision", "correlation": "rank correlation"}


def measures_figure(summary: pd.DataFrame, kinds: dict[str, str]) -> Figure:
    """Means of the automatic measures with 95% intervals, a panel a measure.

    Args:
        summary: ``automatic_summary.csv``.
        kinds: the kind of each dictionary, by name. The kind of the baseline is :data:`BASELINE`.
    """
    labels = LABELS | {BASELINE: "random directions"}
    with plt.style.context(STYLE):
        figure, axes = plt.subplots(1, len(MEASURES), figsize=(7.8, 2.4), sharey=True)
        for panel, (measure, title) in zip(axes, MEASURES.items(), strict=True):
            rows = summary[summary["measure"] == measure].set_index("dictionary")
            for place, (name, kind) in enumerate(reversed(kinds.items())):
                if name not in rows.index:  # it has no live features
                    continue
                row = rows.loc[name]
                panel.errorbar(
                    row["mean"], place,
                    xerr=[[row["mean"] - row["low"]], [row["high"] - row["mean"]]],
                    color=COLOURS.get(kind, BOUND_COLOUR), marker=MARKERS.get(kind, "x"),
                    capsize=3, linestyle="",
                )  # fmt: skip
                panel.annotate(
                    f"{row['mean']:.2f}", (row["mean"], place), textcoords="offset points",
                    xytext=(0, 6), ha="center", fontsize=8,
                )  # fmt: skip
            panel.set_title(title)
            panel.xaxis.set_major_locator(MaxNLocator(4))
            panel.margins(x=0.25)
            panel.set_ylim(-0.5, len(kinds) - 0.3)
        axes[0].set_yticks(range(len(kinds)), [labels[kind] for kind in reversed(kinds.values())])
    return figure


def studies_figure(summary: pd.DataFrame) -> Figure:
    """How much blind predictions gain over their control, by layer, L0 and frequency.

    Args:
        summary: ``systematic_summary.csv``.
    """
    summary = summary.assign(group=summary["group"].astype(str))
    groupings = list(dict.fromkeys(summary["by"])) or ["all"]
    widths = [max(summary[summary["by"] == by]["group"].nunique(), 1) for by in groupings]
    with plt.style.context(STYLE):
        figure, axes = plt.subplots(
            len(SCORES), len(groupings), figsize=(8.2, 5.2), sharey="row", sharex="col",
            width_ratios=[width + 0.6 for width in widths], squeeze=False,
        )  # fmt: skip
        for row, (score, label) in enumerate(SCORES.items()):
            for column, by in enumerate(groupings):
                _gains(axes[row][column], summary[summary["by"] == by], score)
                if row == 0:
                    axes[row][column].set_title("all features" if by == "all" else f"by {by}")
            axes[row][0].set_ylabel(f"{label}:\ngain over the control")
        handles, labels = axes[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


def _gains(panel: Axes, rows: pd.DataFrame, score: str) -> None:
    groups = list(dict.fromkeys(rows["group"]))
    for number, (method, (label, colour, marker)) in enumerate(METHODS.items()):
        chosen = rows[rows["method"] == method].set_index("group").reindex(groups)
        gain = chosen[f"{score}_gain"]
        panel.errorbar(
            [place + (number - 1.5) * 0.16 for place in range(len(groups))],
            gain,
            yerr=[gain - chosen[f"{score}_gain_low"], chosen[f"{score}_gain_high"] - gain],
            color=colour, marker=marker, linestyle="", markersize=4, elinewidth=1, label=label,
        )  # fmt: skip
    panel.axhline(0, color=BOUND_COLOUR, linewidth=0.8)
    panel.set_xticks(range(len(groups)), groups)
    panel.set_xlim(-0.6, len(groups) - 0.4)
    panel.grid(visible=False, axis="x")
