"""Circuits against the real model."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from transcoders.circuits.steering import agreement
from transcoders.plots.style import BOUND_COLOUR, COLOURS, MARKERS, STYLE, legend_below

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


def replacement_figure(quality: pd.DataFrame, errors: dict[str, pd.DataFrame]) -> Figure:
    """What the replacement model loses on text, and what errors carry of each circuit's target.

    Args:
        quality: ``replacement.csv``; a panel for each model.
        errors: ``errors.csv`` by circuit; one panel, a row for each circuit, a column for each
            layer with a transcoder.
    """
    models = quality["model"].unique()
    shares = pd.DataFrame(
        {
            name: table[table["origin"] == "error"].set_index("layer")["share"]
            for name, table in errors.items()
        }
    ).T.reindex(columns=_layers(quality))
    with plt.style.context(STYLE):
        widths = [3.0] * len(models) + [max(3.0, 0.5 * shares.shape[1])]
        figure, axes = plt.subplots(
            1, len(widths), figsize=(sum(widths) + 1, max(2.8, 0.32 * len(shares) + 1)),
            width_ratios=widths, squeeze=False, layout="constrained",
        )  # fmt: skip
        for panel, model in zip(axes[0], models, strict=False):
            rows = quality[quality["model"] == model]
            for column, label, kind in (
                ("ce_mean_ablated", "means", "mlp_out_sae"),
                ("ce", "transcoders", "transcoder"),
            ):
                below, above = rows[column] - rows[f"{column}_low"], rows[f"{column}_high"]
                panel.errorbar(
                    rows["n_replaced"], rows[column], yerr=[below, above - rows[column]],
                    color=COLOURS[kind], marker=MARKERS[kind], label=label, capsize=2,
                )  # fmt: skip
            original = rows["ce_original"].iloc[0]
            panel.axhline(original, color=BOUND_COLOUR, linestyle=":", label="the model itself")
            panel.set(title=model, xlabel="MLPs replaced, the last first", ylabel="CE (nats)")
            panel.set_xticks(rows["n_replaced"])
            panel.legend(title="in place of MLPs", fontsize="x-small", title_fontsize="x-small")
        _draw_shares(axes[0, -1], shares)
    return figure


def _layers(quality: pd.DataFrame) -> list[int]:
    """The layers with a transcoder, of all models."""
    return sorted({int(n) for layers in quality["layers"].fillna("") for n in str(layers).split()})


def _draw_shares(panel: Axes, shares: pd.DataFrame) -> None:
    panel.imshow(shares, cmap="RdBu", vmin=-1, vmax=1, aspect="auto")
    panel.grid(visible=False)
    panel.set_xticks(range(shares.shape[1]), [str(layer) for layer in shares])
    panel.set_yticks(range(len(shares)), list(shares.index))
    panel.set(title="share of the target in errors", xlabel="layer of the transcoder")
    for row, column in zip(*np.nonzero(shares.notna().to_numpy()), strict=True):
        value = shares.iloc[row, column]
        panel.text(
            column, row, f"{value:.2f}", ha="center", va="center", fontsize=6,
            color="white" if abs(value) > 0.6 else "black",  # on dark cells
        )  # fmt: skip


SHARE_TICKS = [-100, -10, -1, -0.5, 0, 0.5, 1, 10, 100]
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
        figure, panels = plt.subplots(
            1, 2, figsize=(7.2, 1.5 + 0.42 * len(controls)), sharey=True, layout="constrained"
        )
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
            low, high = panel.get_xlim()
            ticks = [tick for tick in SHARE_TICKS if low <= tick <= high]
            panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            panel.xaxis.set_minor_locator(NullLocator())
            panel.set(title=measure, xlabel="effect, as a share of all parts'")
            panel.set_yticks(range(len(controls)), list(controls))
        panels[0].invert_yaxis()
        handles, labels = panels[0].get_legend_handles_labels()
        legend_below(figure, dict(zip(labels[:4], handles[:4], strict=True)), "")
    return figure


def steering_figure(steered: dict[str, pd.DataFrame]) -> Figure:
    """Real against predicted changes of targets, a panel for each factor, a marker for each kind.

    Args:
        steered: ``steering.csv`` by circuit.
    """
    table = pd.concat(steered.values())
    with plt.style.context(STYLE):
        figure, panels = plt.subplots(
            1, table["factor"].nunique(), figsize=(7.2, 2.9), squeeze=False, layout="constrained"
        )
        for panel, (factor, rows) in zip(panels[0], table.groupby("factor"), strict=True):
            for kind, (_, colour, marker) in NODE_STYLES.items():
                of_kind = rows[rows["kind"] == kind]
                panel.scatter(
                    of_kind["predicted"], of_kind["change"],
                    s=12, color=colour, marker=marker, alpha=0.7, linewidth=0,
                )  # fmt: skip
            panel.axline((0, 0), slope=1, color=BOUND_COLOUR, linestyle="--", linewidth=0.8)
            _, correlation, slope = agreement(rows)
            panel.set(
                title=f"× {factor:g}: r = {correlation:.2f}, slope {slope:.2f}",
                xlabel="predicted change of the target",
            )
            panel.set_xscale("symlog", linthresh=0.1)
            panel.set_yscale("symlog", linthresh=0.1)
        panels[0, 0].set_ylabel("change in the real model")
        labels = [label for label, *_ in NODE_STYLES.values()]
        legend_below(figure, dict(zip(labels, panels[0, 0].collections, strict=True)), "")
    return figure
