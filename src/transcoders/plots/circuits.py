"""Circuits against the real model."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from transcoders.circuits.steering import agreement
from transcoders.plots.style import (
    BOUND_COLOUR,
    COLOURS,
    MARKERS,
    STYLE,
    WIDTH,
    columns_of_two,
    legend_below,
)  # fmt: skip

NODE_STYLES = {
    "feature": ("feature", "#0072B2", "o"),
    "head": ("head", "#E69F00", "s"),
    "mlp": ("MLP without a transcoder", "#666666", "^"),
}
PART_TICKS = [0, 1, 16, 256, 4096]


def verification_figure(circuits: dict[str, tuple[pd.DataFrame, pd.DataFrame, int]]) -> Figure:
    """Circuits against the real model, with a row for each circuit.

    Left: how far the target falls when a node is ablated, against the node's attribution. Right:
    how much of the target is left with only the most influential parts, and without them.

    Args:
        circuits: ``ablation.csv``, ``faithfulness.csv`` and the number of parts of each, by name.
    """
    with plt.style.context(STYLE):
        n, rows = len(circuits), circuits.items()
        figure, axes = plt.subplots(n, 2, figsize=(WIDTH, 1 + 2.8 * n), squeeze=False)
        for (name, (effects, curve, n_parts)), (left, right) in zip(rows, axes, strict=True):
            _scatter(left, effects, "attribution", "effect", s=18, alpha=0.8)
            left.set(xlabel="attribution", ylabel="fall of the target when ablated")
            left.set_title(f"{name}\n{len(effects)} nodes")
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
                label="the circuit found",
            )  # fmt: skip
            right.set_xscale("symlog", base=2, linthresh=1)
            right.set_xlim(-0.5, 1.5 * curve["n_nodes"].max())
            right.set_xticks(PART_TICKS, [f"{n:,}" for n in PART_TICKS])
            right.xaxis.set_minor_locator(NullLocator())
            right.set(xlabel="parts, most influential first", ylabel="share of the target left")
            right.set_title(f"{name}\ncircuit of {n_parts} parts")
        legend_below(figure, axes[0])
    return figure


def _scatter(panel: Axes, nodes: pd.DataFrame, x: str, y: str, **look: Any) -> None:
    """Two columns of nodes against each other, a marker for each kind, and where they are equal."""
    for kind, (label, colour, marker) in NODE_STYLES.items():
        of_kind = nodes[nodes["kind"] == kind]
        panel.scatter(
            of_kind[x], of_kind[y], color=colour, marker=marker, label=label, linewidth=0, **look
        )
    panel.axline((0, 0), slope=1, color=BOUND_COLOUR, linestyle="--", linewidth=0.8)


def replacement_figure(quality: pd.DataFrame, errors: dict[str, pd.DataFrame]) -> Figure:
    """What the replacement model loses on text, and what errors carry of each circuit's target.

    Args:
        quality: ``replacement.csv``; a panel for each model.
        errors: ``errors.csv`` by circuit; one panel, a column for each circuit, a row for each
            layer with a transcoder, the last layer on top.
    """
    models = quality["model"].unique()
    shares = pd.DataFrame(
        {
            name: table[table["origin"] == "error"].set_index("layer")["share"]
            for name, table in errors.items()
        }
    ).reindex(_layers(quality)[::-1])
    heights = [2.4] * len(models) + [0.24 * len(shares) + 1]
    with plt.style.context(STYLE):
        figure, axes = plt.subplots(
            len(heights), 1, figsize=(WIDTH, sum(heights) + 1.4), height_ratios=heights
        )
        for panel, model in zip(axes, models, strict=False):
            rows = quality[quality["model"] == model]
            for column, label, kind in (
                ("ce_mean_ablated", "means in place of MLPs", "mlp_out_sae"),
                ("ce", "transcoders in place of MLPs", "transcoder"),
            ):
                below, above = rows[column] - rows[f"{column}_low"], rows[f"{column}_high"]
                panel.errorbar(
                    rows["n_replaced"], rows[column], yerr=[below, above - rows[column]],
                    color=COLOURS[kind], marker=MARKERS[kind], label=label, capsize=2,
                )  # fmt: skip
            original = rows["ce_original"].iloc[0]
            panel.axhline(original, color=BOUND_COLOUR, linestyle=":", label="the model itself")
            panel.set(
                title=model, xlabel="MLPs replaced, the last first", ylabel="CE (nats a token)"
            )
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        _draw_shares(axes[-1], shares)
        legend_below(figure, axes[:1], "bars: 95% intervals over documents")
    return figure


def _layers(quality: pd.DataFrame) -> list[int]:
    """The layers with a transcoder, of all models."""
    return sorted({int(n) for layers in quality["layers"].fillna("") for n in str(layers).split()})


def _draw_shares(panel: Axes, shares: pd.DataFrame) -> None:
    panel.imshow(shares, cmap="RdBu", vmin=-1, vmax=1, aspect="auto")
    panel.grid(visible=False)
    panel.set_yticks(range(len(shares)), [str(layer) for layer in shares.index])
    panel.set_xticks(
        range(shares.shape[1]), [str(name) for name in shares], rotation=30, ha="right"
    )
    panel.set(title="share of the target in errors", ylabel="layer of the transcoder")
    for row, column in zip(*np.nonzero(shares.notna().to_numpy()), strict=True):
        value = shares.iloc[row, column]
        panel.text(
            column, row, f"{value:.2f}", ha="center", va="center", fontsize=9,
            color="white" if abs(value) > 0.6 else "black",  # on dark cells
        )  # fmt: skip


CHANGE_TICKS: list[float] = [-100, -10, -1, -0.1, 0, 0.1, 1, 10, 100]
SHARE_TICKS: list[float] = [-100, -10, -1, -0.5, 0, 0.5, 1, 10, 100]
CONTROL_STYLES = {
    "random": ("random: same kinds and layers", "#999999", 0.16),
    "random at tokens": ("random: same tokens too", "#56B4E9", -0.16),
}


def controls_figure(controls: dict[str, pd.DataFrame]) -> Figure:
    """Circuits against random sets of as many parts: a panel for each measure, a row a circuit.

    Effects are in units of what there is to explain: of all parts together.

    Args:
        controls: ``controls.csv`` by circuit.
    """
    with plt.style.context(STYLE):
        figure, panels = plt.subplots(1, 2, figsize=(WIDTH, 2.2 + 0.5 * len(controls)), sharey=True)
        for panel, measure in zip(panels, ("necessity", "sufficiency"), strict=True):
            for row, table in enumerate(controls.values()):
                sets = table[table["measure"] == measure].groupby("set")["effect"]
                unit = abs(sets.get_group("everything").iloc[0]) or float("nan")
                for name, (label, colour, offset) in CONTROL_STYLES.items():
                    drawn = sets.get_group(name) / unit
                    panel.scatter(
                        drawn, np.full(len(drawn), row - offset),
                        marker="|", s=40, linewidth=0.8, color=colour, label=label,
                    )  # fmt: skip
                for name, label, colour, marker in (
                    ("strongest", "the strongest by activation", "#E69F00", "D"),
                    ("circuit", "the circuit", COLOURS["transcoder"], "o"),
                ):
                    value = sets.get_group(name).iloc[0] / unit
                    panel.scatter(value, row, marker=marker, s=26, color=colour, label=label)
            panel.axvline(0, color=BOUND_COLOUR, linestyle=":", linewidth=0.8)
            panel.set_xscale("symlog", linthresh=1)
            _tick(panel.xaxis, SHARE_TICKS)
            panel.set(title=measure, xlabel="effect (share of all parts')")
            panel.set_yticks(range(len(controls)), list(controls))
        panels[0].invert_yaxis()
        legend_below(figure, panels[:1], f"{len(drawn)} random sets of each sort")
    return figure


def _tick(axis: Axis, places: list[float]) -> None:
    """Ticks at some places, of which those beyond the ends of the axis are not drawn."""
    axis.set_major_locator(FixedLocator(places))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(NullLocator())


def steering_figure(steered: dict[str, pd.DataFrame]) -> Figure:
    """Real against predicted changes of targets, a panel for each factor, a marker for each kind.

    Args:
        steered: ``steering.csv`` by circuit.
    """
    table = pd.concat(steered.values())
    with plt.style.context(STYLE):
        figure, panels = columns_of_two(table["factor"].nunique(), height=2.8)
        for panel, (factor, rows) in zip(panels, table.groupby("factor"), strict=True):
            _scatter(panel, rows, "predicted", "change", s=14, alpha=0.7)
            _, correlation, slope = agreement(rows)
            panel.set(
                title=f"× {factor:g}: {len(rows)} nodes\nr = {correlation:.2f}, slope {slope:.2f}",
                xlabel="predicted change",
            )
            panel.set_xscale("symlog", linthresh=0.1)
            panel.set_yscale("symlog", linthresh=0.1)
            _tick(panel.xaxis, CHANGE_TICKS)
            _tick(panel.yaxis, CHANGE_TICKS)
        for panel in panels[::2]:
            panel.set_ylabel("change in the real model")
        legend_below(figure, panels, "changes of the target (in its own unit)")
    return figure
