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
from transcoders.plots import style

NODE_LOOKS: dict[str, style.Look] = {
    "feature": {"label": "feature", "color": "#0072B2", "marker": "o"},
    "head": {"label": "head", "color": "#E69F00", "marker": "s"},
    "mlp": {"label": "MLP without a transcoder", "color": "#666666", "marker": "^"},
}
PART_TICKS = [0, 1, 16, 256, 4096]


@style.styled
def verification_figure(circuits: dict[str, tuple[pd.DataFrame, pd.DataFrame, int]]) -> Figure:
    """Circuits against the real model, with a row for each circuit.

    Left: how far the target falls when a node is ablated, against the node's attribution. Right:
    how much of the target is left with only the most influential parts, and without them.

    Args:
        circuits: ``ablation.csv``, ``faithfulness.csv`` and the number of parts of each, by name.
    """
    n = len(circuits)
    figure, axes = plt.subplots(n, 2, figsize=(style.WIDTH, 1 + 2.8 * n), squeeze=False)
    for (name, found), (left, right) in zip(circuits.items(), axes, strict=True):
        effects, curve, n_parts = found
        _scatter(left, effects, "attribution", "effect", s=18, alpha=0.8)
        left.set(xlabel="attribution", ylabel="fall of the target when ablated")
        left.set_title(f"{name}\n{len(effects)} nodes")
        sizes = curve["n_nodes"]
        right.plot(sizes, curve["faithfulness"], label="only these", **style.LOOKS["transcoder"])
        right.plot(sizes, curve["remaining"], label="all but these", **style.LOOKS["mlp_out_sae"])
        for level in (0, 1):
            right.axhline(level, linestyle=":", **style.THIN)
        right.axvline(n_parts, linestyle="--", label="the circuit found", **style.THIN)
        right.set_xscale("symlog", base=2, linthresh=1)
        right.set_xlim(-0.5, 1.5 * sizes.max())
        right.set_xticks(PART_TICKS, [f"{n:,}" for n in PART_TICKS])
        right.xaxis.set_minor_locator(NullLocator())
        right.set(xlabel="parts, most influential first", ylabel="share of the target left")
        right.set_title(f"{name}\ncircuit of {n_parts} parts")
    style.shared_legend(figure, axes[0])
    return figure


def _scatter(panel: Axes, nodes: pd.DataFrame, x: str, y: str, **look: Any) -> None:
    """Two columns of nodes against each other, a marker for each kind; dashed where equal."""
    for kind, of_all in NODE_LOOKS.items():
        of_kind = nodes[nodes["kind"] == kind]
        panel.scatter(of_kind[x], of_kind[y], linewidth=0, **of_all, **look)
    panel.axline((0, 0), slope=1, linestyle="--", **style.THIN)


@style.styled
def replacement_figure(quality: pd.DataFrame, errors: dict[str, pd.DataFrame]) -> Figure:
    """What the replacement model loses on text, and what errors carry of each circuit's target.

    Args:
        quality: ``replacement.csv``; a panel for each model.
        errors: ``errors.csv`` by circuit; one panel, a column for each circuit, a row for each
            layer with a transcoder, the last layer on top.
    """
    models = quality.groupby("model", sort=False)
    shares = pd.DataFrame(
        {
            name: table[table["origin"] == "error"].set_index("layer")["share"]
            for name, table in errors.items()
        }
    ).reindex(_layers(quality)[::-1])
    heights = [2.4] * models.ngroups + [0.24 * len(shares) + 1]
    figure, axes = plt.subplots(
        len(heights), 1, figsize=(style.WIDTH, sum(heights) + 1.4), height_ratios=heights
    )
    for panel, (model, rows) in zip(axes, models, strict=False):
        for column, label, kind in (
            ("ce_mean_ablated", "means in place of MLPs", "mlp_out_sae"),
            ("ce", "transcoders in place of MLPs", "transcoder"),
        ):
            reach = style.error_bars(rows, column, f"{column}_low", f"{column}_high")
            panel.errorbar(
                rows["n_replaced"], rows[column], reach, label=label, capsize=2, **style.LOOKS[kind]
            )
        original = rows["ce_original"].iloc[0]
        panel.axhline(original, color=style.BOUND_COLOUR, linestyle=":", label="the model itself")
        panel.set(title=model, xlabel="MLPs replaced, the last first", ylabel="CE (nats a token)")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    _draw_shares(axes[-1], shares)
    style.shared_legend(figure, axes[:1], "bars: 95% intervals over documents")
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


CHANGE_TICKS: list[float] = [-10, -1, -0.1, 0, 0.1, 1, 10]
SHARE_TICKS: list[float] = [-100, -10, -1, -0.5, 0, 0.5, 1, 10, 100]
RANDOM_SETS: dict[str, tuple[float, style.Look]] = {
    "random": (0.16, {"label": "random: same kinds and layers", "color": "#999999"}),
    "random at tokens": (-0.16, {"label": "random: same tokens too", "color": "#56B4E9"}),
}
"""How far above a circuit's line each sort is drawn, and its look."""
SINGLE_SETS: dict[str, style.Look] = {
    "strongest": {"label": "the strongest by activation", "color": "#E69F00", "marker": "D"},
    "circuit": {"label": "the circuit", **style.LOOKS["transcoder"]},
}


@style.styled
def controls_figure(controls: dict[str, pd.DataFrame]) -> Figure:
    """Circuits against random sets of as many parts: a panel for each measure, a row for each.

    Effects are shares of the effect of all parts together.

    Args:
        controls: ``controls.csv`` by circuit.
    """
    figure, panels = plt.subplots(
        1, 2, figsize=(style.WIDTH, 2.2 + 0.5 * len(controls)), sharey=True
    )
    for panel, measure in zip(panels, ("necessity", "sufficiency"), strict=True):
        for row, table in enumerate(controls.values()):
            sets = table[table["measure"] == measure].groupby("set")["effect"]
            unit = abs(sets.get_group("everything").iloc[0]) or float("nan")
            for name, (above, look) in RANDOM_SETS.items():
                drawn = sets.get_group(name) / unit
                heights = np.full(len(drawn), row - above)
                panel.scatter(drawn, heights, marker="|", s=40, linewidth=0.8, **look)
            for name, look in SINGLE_SETS.items():
                panel.scatter(sets.get_group(name).iloc[0] / unit, row, s=26, **look)
        panel.axvline(0, linestyle=":", **style.THIN)
        panel.set_xscale("symlog", linthresh=1)
        _tick(panel.xaxis, SHARE_TICKS)
        panel.set(title=measure, xlabel="effect (share of all parts')")
        panel.set_yticks(range(len(controls)), list(controls))
    panels[0].invert_yaxis()
    style.shared_legend(figure, panels[:1], f"{len(drawn)} random sets of each sort")
    return figure


def _tick(axis: Axis, places: list[float]) -> None:
    """Ticks at some places; those beyond the ends of the axis are not drawn."""
    axis.set_major_locator(FixedLocator(places))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(NullLocator())


@style.styled
def steering_figure(steered: dict[str, pd.DataFrame]) -> Figure:
    """Real against predicted changes of targets, a panel for each factor, a marker for each kind.

    Args:
        steered: ``steering.csv`` by circuit.
    """
    factors = pd.concat(steered.values()).groupby("factor")
    figure, panels = style.columns_of_two(factors.ngroups, height=2.8)
    for panel, (factor, rows) in zip(panels, factors, strict=True):
        _scatter(panel, rows, "predicted", "change", s=14, alpha=0.7)
        _, correlation, slope = agreement(rows)
        panel.set_title(
            f"× {factor:g}: {len(rows)} nodes\nr = {correlation:.2f}, slope {slope:.2f}".replace(
                "-", "−"
            )
        )
        panel.set(xlabel="predicted change")
        panel.set_xscale("symlog", linthresh=0.1)
        panel.set_yscale("symlog", linthresh=0.1)
        _tick(panel.xaxis, CHANGE_TICKS)
        _tick(panel.yaxis, CHANGE_TICKS)
    for panel in panels[::2]:
        panel.set_ylabel("change in the real model")
    style.shared_legend(figure, panels, "changes of the target (in its own unit)")
    return figure
