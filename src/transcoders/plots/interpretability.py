"""Automatic measures of interpretability, and blind studies."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from transcoders.plots import style

MEASURES = {
    "single_token_share": "single-token share (1: one token alone)",
    "token_entropy": "token entropy in bits (0: one token alone)",
    "rule_accuracy": "accuracy of a rule (0.5: guessing)",
}
BASELINE = "random_directions"
METHODS: dict[str, style.Look] = {
    "direct": {"label": "direct", "color": "#56B4E9", "marker": "o"},
    "layer 0, linear": {
        "label": "through 10 features of layer 0", "color": "#E69F00", "marker": "s",
    },
    "layer 0": {"label": "through all of layer 0", "color": "#0072B2", "marker": "D"},
    "heads": {"label": "through heads, earlier tokens", "color": "#009E73", "marker": "^"},
}  # fmt: skip
SCORES = {"precision": "precision", "correlation": "rank correlation"}


@style.styled
def measures_figure(summary: pd.DataFrame, kinds: dict[str, str]) -> Figure:
    """Means of the automatic measures with 95% intervals, a panel for each measure.

    Args:
        summary: ``automatic_summary.csv``.
        kinds: the kind of each dictionary, by name. The kind of the baseline is :data:`BASELINE`.
    """
    labels = style.LABELS | {BASELINE: "random directions"}
    looks = style.LOOKS | {BASELINE: {"color": style.BOUND_COLOUR, "marker": "x"}}
    figure, axes = plt.subplots(len(MEASURES), 1, figsize=(style.WIDTH, 1.8 * len(MEASURES)))
    for panel, (measure, title) in zip(axes, MEASURES.items(), strict=True):
        rows = summary[summary["measure"] == measure].set_index("dictionary")
        shown = list(reversed(kinds.items()))
        for place, (name, kind) in enumerate(shown):
            if name not in rows.index:  # it has no live features
                continue
            row, reach = rows.loc[name], style.error_bars(rows.loc[name], "mean")
            panel.errorbar(row["mean"], place, xerr=reach, capsize=3, linestyle="", **looks[kind])
            panel.annotate(
                f"{row['mean']:.2f}", (row["mean"], place), textcoords="offset points",
                xytext=(0, 6), ha="center",
            )  # fmt: skip
        panel.set_title(title)
        panel.xaxis.set_major_locator(MaxNLocator(4))
        panel.margins(x=0.25)
        panel.set_ylim(-0.5, len(kinds) - 0.2)
        n = rows["n_features"].astype(int)
        names = [f"{labels[kind]}\n{n.get(name, 0):,} features" for name, kind in shown]
        panel.set_yticks(range(len(kinds)), names)
    return figure


@style.styled
def studies_figure(summary: pd.DataFrame) -> Figure:
    """How much blind predictions gain over their control, by layer, L0 and frequency.

    Args:
        summary: ``systematic_summary.csv``.
    """
    summary = summary.assign(group=summary["group"].astype(str))
    groupings = list(dict.fromkeys(summary["by"])) or ["all"]
    n_groups = [max(summary[summary["by"] == by]["group"].nunique(), 1) for by in groupings]
    figure, axes = plt.subplots(
        len(groupings), len(SCORES), figsize=(style.WIDTH, 2.0 + 0.55 * sum(n_groups)),
        sharex="col", sharey="row", height_ratios=[n + 0.3 for n in n_groups], squeeze=False,
    )  # fmt: skip
    for by, row in zip(groupings, axes, strict=True):
        for panel, score in zip(row, SCORES, strict=True):
            _gains(panel, summary[summary["by"] == by], score)
        row[0].set_ylabel("" if by == "all" else by)
    for panel, title in zip(axes[0], SCORES.values(), strict=True):
        panel.set_title(title)
    for panel in axes[-1]:
        panel.set_xlabel("gain over the control")
    style.shared_legend(figure, axes[0], "in brackets: features; bars: 95% intervals over them")
    return figure


def _gains(panel: Axes, rows: pd.DataFrame, score: str) -> None:
    groups = rows.groupby("group", sort=False)["n_features"].max()
    places, gain = np.arange(len(groups)), f"{score}_gain"
    for number, (method, look) in enumerate(METHODS.items()):
        chosen = rows[rows["method"] == method].set_index("group").reindex(groups.index)
        reach = style.error_bars(chosen, gain, f"{gain}_low", f"{gain}_high")
        panel.errorbar(
            chosen[gain], places + (number - 1.5) * 0.2, xerr=reach,
            linestyle="", markersize=4, elinewidth=1, **look,
        )  # fmt: skip
    panel.axvline(0, **style.THIN)
    panel.set_yticks(places, [f"{group} ({n:.0f})" for group, n in groups.items()])
    panel.set_ylim(len(groups) - 0.4, -0.6)
    panel.grid(visible=False, axis="y")
