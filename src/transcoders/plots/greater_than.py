"""The greater-than case study: where it is computed, and Figures 4 and 5."""

from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from transcoders.plots.style import (
    BOUND_COLOUR,
    COLOURS,
    MARKERS,
    STYLE,
    WIDTH,
    groups_of_three,
    legend_below,
)

MEASURES = {
    "mean": ("mean ablation at the last position", "difference lost"),
    "zero": ("zero ablation at the last position", "difference lost"),
    "attribution": ("attribution to the logit difference", "logits"),
}
"""Title and axis of each panel, by column of ``where.csv``."""
N_YEARS = 98
"""The prompts of a template that count: 00 has no earlier year, and 99 no later one."""
BLUE, RED = COLOURS["transcoder"], COLOURS["mlp_out_sae"]
CURVE_STYLES = {
    "transcoder": ("transcoder features", BLUE, MARKERS["transcoder"], "-"),
    "transcoder_without_bad": ("without the feature that does most harm", BLUE, "", ":"),
    "mlp_out_sae": ("features of the SAE on the MLP's output", RED, MARKERS["mlp_out_sae"], "-"),
    "neurons": ("neurons of the MLP", "#000000", "x", "-"),
}
"""Label, colour, marker and line of each curve."""
LEVELS = {
    "original": ("unmodified model", "#009E73", (0, (5, 1))),
    "transcoder": ("MLP replaced by the whole transcoder", BLUE, (0, (4, 2, 1, 2))),
    "removed": ("MLP removed", BOUND_COLOUR, (0, (1, 1))),
}
"""Label, colour and dashes of the levels of whole models."""
QUANTITIES = {
    "activation": "when it is active:\nmean activation",
    "dla": "what it says: DLA (logits)",
    "de_embedding": "what drives it: de-embedding",
}


def where_figure(where: pd.DataFrame, layer: int, head: str) -> Figure:
    """What each MLP and head carries, by layer: two ablations and attribution.

    Args:
        where: ``where.csv``.
        layer: of the chosen MLP, which gets its name.
        head: the chosen head, such as ``attn9[1]``, which gets its name too.
    """
    with plt.style.context(STYLE):
        figure, axes = plt.subplots(3, 1, figsize=(WIDTH, 7.8), sharex=True)
        heads, mlps = (where[where["kind"] == kind] for kind in ("head", "mlp"))
        covered, bare = mlps[mlps["has_transcoder"]], mlps[~mlps["has_transcoder"]]
        for panel, (measure, (title, unit)) in zip(axes, MEASURES.items(), strict=True):
            panel.bar(
                covered["layer"], covered[measure], width=0.7, color="#56B4E9",
                label="MLPs with a transcoder",
            )  # fmt: skip
            if len(bare):
                label = "MLPs without a transcoder"
                panel.bar(bare["layer"], bare[measure], width=0.7, color="#BBBBBB", label=label)
            panel.scatter(
                heads["layer"], heads[measure], s=16, color="#E69F00", edgecolor="black",
                linewidth=0.3, label="heads", zorder=3,
            )  # fmt: skip
            panel.axhline(0, color=BOUND_COLOUR, linewidth=0.8)
            panel.set_title(title)
            panel.set_ylabel(unit)
            panel.set_xlim(-1, where["layer"].max() + 1)
            low, high = panel.get_ylim()
            panel.set_ylim(low, high + 0.3 * (high - low))  # room for two names
            _name(panel, where, f"mlp{layer}", measure, 0.95)
            _name(panel, where, head, measure, 0.84)
        legend_below(figure, axes[:1])
        axes[-1].set_xlabel("layer")
        axes[-1].xaxis.set_major_locator(MultipleLocator(max(1, round(where["layer"].max() / 15))))
    return figure


def _name(panel: Axes, where: pd.DataFrame, part: str, measure: str, height: float) -> None:
    """Name a part of the circuit above all marks, with a line down to its own."""
    row = where[where["part"] == part].iloc[0]
    on_the_right = row["layer"] > where["layer"].max() / 2
    panel.annotate(
        part.replace("mlp", "MLP "), (row["layer"], row[measure]),
        xytext=(row["layer"], height), textcoords=panel.get_xaxis_transform(),
        ha="right" if on_the_right else "left", va="center", fontweight="bold",
        arrowprops={"arrowstyle": "-", "linewidth": 0.8, "color": BOUND_COLOUR,
                    "relpos": (1 if on_the_right else 0, 0.5), "shrinkB": 3},
    )  # fmt: skip


def kept_figure(curves: pd.DataFrame, metric: dict[str, dict[str, float]]) -> Figure:
    """Figure 4: the metric against the number of units kept.

    Args:
        curves: ``curves.csv``. There is a panel for the mean, and below it one for each template.
        metric: of ``summary.json``. It has the levels of the whole models.
    """
    templates = [each for each in dict.fromkeys(curves["template"].astype(str)) if each != "all"]
    below = templates if len(templates) > 1 else []  # the mean of one template is that template
    padded = [*below, *["."] * (len(below) % 2)]
    rows: list[Any] = [["all", "all"], *(padded[i : i + 2] for i in range(0, len(padded), 2))]
    with plt.style.context(STYLE):
        figure, panels = plt.subplot_mosaic(
            rows, figsize=(WIDTH, 2.8 + 2.3 * len(rows)), sharey=True
        )
        for template, panel in panels.items():
            _curves(panel, curves[curves["template"].astype(str) == template])
            panel.set_title(f"template {template} (n = {N_YEARS})")
        panels["all"].set_title(f"all prompts (n = {len(templates) * N_YEARS})")
        for name, (label, colour, dashes) in LEVELS.items():
            panels["all"].axhline(
                metric[name]["value"], color=colour, linestyle=dashes, linewidth=1.2, label=label
            )
        for row in rows:
            panels[row[0]].set_ylabel("p(later) − p(other years)")
        figure.legend(
            *panels["all"].get_legend_handles_labels(), loc="outside lower center",
            title="bands: 95% intervals over decades",
        )  # fmt: skip
    return figure


def _curves(panel: Axes, rows: pd.DataFrame) -> None:
    for name, (label, colour, marker, line) in CURVE_STYLES.items():
        points = rows[rows["curve"] == name]
        if points.empty:
            continue
        kept = points["kept"]
        panel.plot(
            kept, points["metric"], label=label, color=colour, linestyle=line,
            marker=marker, markersize=4, markevery=_marked(kept),
        )  # fmt: skip
        if (points["template"] == "all").all() and name != "transcoder_without_bad":
            band = points["low"], points["high"]
            panel.fill_between(kept, *band, color=colour, alpha=0.12, linewidth=0)
    panel.set_xscale("symlog", linthresh=4, linscale=0.6)
    ticks = [n for n in (0, 1, 2, 4, 8, 16, 32, 64) if n <= rows["kept"].max()]
    panel.set_xticks(ticks, [str(tick) for tick in ticks])
    panel.minorticks_off()
    panel.set_xlabel("units kept, by variance")


def _marked(kept: "pd.Series[int]") -> list[int]:
    """Where to put markers on a logarithmic axis: the first few, then ever further apart."""
    wanted = {0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 18, 22, 26, 32, 40, 50, 60, 80, 100}
    return [place for place, n in enumerate(kept) if n in wanted]


def years_figure(features: pd.DataFrame, by_year: pd.DataFrame, numbers: str) -> Figure:
    """Figure 5, three panels a feature: when it is active, what it says, and what drives it.

    Args:
        features: ``features.csv``.
        by_year: ``features_by_year.csv``.
        numbers: ``pairs`` if weights are about years, ``digits`` if they are about tens digits.
    """
    shown = list(dict.fromkeys(by_year["feature"]))
    axis = "YY" if numbers == "pairs" else "tens digit of YY"
    with plt.style.context(STYLE):
        figure, groups = groups_of_three(len(shown), height=3.0)
        for panels, feature in zip(groups, shown, strict=True):
            described = features[features["feature"] == feature].iloc[0]
            for panel, (quantity, title) in zip(panels, QUANTITIES.items(), strict=True):
                points = by_year[
                    (by_year["feature"] == feature) & (by_year["quantity"] == quantity)
                ]
                width = 1.0 if len(points) == 100 else 0.8
                colour = "#999999" if quantity == "activation" else COLOURS["transcoder"]
                panel.bar(points["number"], points["value"], width=width, color=colour)
                panel.axhline(0, color=BOUND_COLOUR, linewidth=0.8)
                panel.set_title(title)
                panel.xaxis.set_major_locator(MultipleLocator(20 if len(points) == 100 else 1))
            panels[0].set_xlabel("YY of the prompt")
            panels[2].set_xlabel(axis)
            note = ",\nchosen as most harmful" if described["bad"] else ""
            panels[0].set_ylabel(f"{feature}, rank {described['rank']}{note}", fontweight="bold")
    return figure
