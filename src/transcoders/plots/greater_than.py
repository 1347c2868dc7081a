"""The greater-than case study: where it is computed, and Figures 4 and 5."""

from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from transcoders.plots import style

MEASURES = {
    "mean": ("mean ablation at the last position", "difference lost"),
    "zero": ("zero ablation at the last position", "difference lost"),
    "attribution": ("attribution to the logit difference", "logits"),
}
"""Title and axis of each panel, by column of ``where.csv``."""
N_YEARS = 98
"""The prompts of a template that count: 00 has no earlier year, and 99 no later one."""
BLUE = style.COLOURS["transcoder"]
CURVES: dict[str, style.Look] = {
    "transcoder": {"label": "transcoder features", **style.LOOKS["transcoder"]},
    "transcoder_without_bad": {
        "label": "without the feature that does most harm",
        "color": BLUE, "marker": "", "linestyle": ":",
    },
    "mlp_out_sae": {
        "label": "features of the SAE on the MLP's output", **style.LOOKS["mlp_out_sae"],
    },
    "neurons": {"label": "neurons of the MLP", "color": "#000000", "marker": "x"},
}  # fmt: skip
"""The look of each curve."""
LEVELS: dict[str, style.Look] = {
    "original": {"label": "unmodified model", "color": "#009E73", "linestyle": (0, (5, 1))},
    "transcoder": {
        "label": "MLP replaced by the whole transcoder",
        "color": BLUE, "linestyle": (0, (4, 2, 1, 2)),
    },
    "removed": {"label": "MLP removed", "color": style.BOUND_COLOUR, "linestyle": (0, (1, 1))},
}  # fmt: skip
"""The look of the levels of whole models."""
QUANTITIES = {
    "activation": "when it is active:\nmean activation",
    "dla": "what it says: DLA (logits)",
    "de_embedding": "what drives it: de-embedding",
}


@style.styled
def where_figure(where: pd.DataFrame, layer: int, head: str) -> Figure:
    """What each MLP and head carries, by layer: two ablations and attribution.

    Args:
        where: ``where.csv``.
        layer: of the chosen MLP, which gets its name.
        head: the chosen head, such as ``attn9[1]``, which gets its name too.
    """
    figure, axes = plt.subplots(3, 1, figsize=(style.WIDTH, 7.8), sharex=True)
    heads, mlps = (where[where["kind"] == kind] for kind in ("head", "mlp"))
    last = where["layer"].max()
    for panel, (measure, (title, unit)) in zip(axes, MEASURES.items(), strict=True):
        for has, colour, label in (
            (True, "#56B4E9", "MLPs with a transcoder"),
            (False, "#BBBBBB", "MLPs without a transcoder"),
        ):
            shown = mlps[mlps["has_transcoder"] == has]
            if len(shown):
                panel.bar(shown["layer"], shown[measure], width=0.7, color=colour, label=label)
        panel.scatter(
            heads["layer"], heads[measure], s=16, color="#E69F00", edgecolor="black",
            linewidth=0.3, label="heads", zorder=3,
        )  # fmt: skip
        panel.axhline(0, **style.THIN)
        panel.set(title=title, ylabel=unit, xlim=(-1, last + 1))
        low, high = panel.get_ylim()
        panel.set_ylim(low, high + 0.3 * (high - low))  # room for two names
        _name(panel, where, f"mlp{layer}", measure, 0.95)
        _name(panel, where, head, measure, 0.84)
    style.shared_legend(figure, axes[:1])
    axes[-1].set_xlabel("layer")
    axes[-1].xaxis.set_major_locator(MultipleLocator(max(1, round(last / 15))))
    return figure


def _name(panel: Axes, where: pd.DataFrame, part: str, measure: str, height: float) -> None:
    """Name a part of the circuit above all marks, with a line down to its own."""
    row = where[where["part"] == part].iloc[0]
    on_the_right = row["layer"] > where["layer"].max() / 2
    panel.annotate(
        part.replace("mlp", "MLP "), (row["layer"], row[measure]),
        xytext=(row["layer"], height), textcoords=panel.get_xaxis_transform(),
        ha="right" if on_the_right else "left", va="center", fontweight="bold",
        arrowprops=dict(arrowstyle="-", relpos=(int(on_the_right), 0.5), shrinkB=3, **style.THIN),
    )  # fmt: skip


@style.styled
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
    size = style.WIDTH, 2.8 + 2.3 * len(rows)
    figure, panels = plt.subplot_mosaic(rows, figsize=size, sharey=True)
    for template, panel in panels.items():
        _curves(panel, curves[curves["template"].astype(str) == template])
        panel.set_title(f"template {template} (n = {N_YEARS})")
    of_all = panels["all"]
    of_all.set_title(f"all prompts (n = {len(templates) * N_YEARS})")
    for name, look in LEVELS.items():
        of_all.axhline(metric[name]["value"], linewidth=1.2, **look)
    for row in rows:
        panels[row[0]].set_ylabel("p(later) − p(other years)")
    figure.legend(
        *of_all.get_legend_handles_labels(), loc="outside lower center",
        title="bands: 95% intervals over decades",
    )  # fmt: skip
    return figure


def _curves(panel: Axes, rows: pd.DataFrame) -> None:
    for name, look in CURVES.items():
        points = rows[rows["curve"] == name]
        if points.empty:
            continue
        kept = points["kept"]
        panel.plot(kept, points["metric"], markersize=4, markevery=_marked(kept), **look)
        if (points["template"] == "all").all() and name != "transcoder_without_bad":
            band = points["low"], points["high"]
            panel.fill_between(kept, *band, color=look["color"], alpha=0.12, linewidth=0)
    panel.set_xscale("symlog", linthresh=4, linscale=0.6)
    ticks = [n for n in (0, 1, 2, 4, 8, 16, 32, 64) if n <= rows["kept"].max()]
    panel.set_xticks(ticks, [str(tick) for tick in ticks])
    panel.minorticks_off()
    panel.set_xlabel("units kept, by variance")


def _marked(kept: "pd.Series[int]") -> list[int]:
    """Where to put markers on a logarithmic axis: the first few, then ever further apart."""
    wanted = {0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 18, 22, 26, 32, 40, 50, 60, 80, 100}
    return [place for place, n in enumerate(kept) if n in wanted]


@style.styled
def years_figure(features: pd.DataFrame, by_year: pd.DataFrame, numbers: str) -> Figure:
    """Figure 5: for each feature, when it is active, what it says, and what drives it.

    Args:
        features: ``features.csv``.
        by_year: ``features_by_year.csv``.
        numbers: ``pairs`` if weights are about years, ``digits`` if they are about tens digits.
    """
    shown = by_year.groupby("feature", sort=False)
    described = features.set_index("feature")
    figure, groups = style.groups_of_three(shown.ngroups, height=3.0)
    for panels, (feature, of_feature) in zip(groups, shown, strict=True):
        for panel, (quantity, title) in zip(panels, QUANTITIES.items(), strict=True):
            points = of_feature[of_feature["quantity"] == quantity]
            width, step = (1.0, 20) if len(points) == 100 else (0.8, 1)
            colour = "#999999" if quantity == "activation" else BLUE
            panel.bar(points["number"], points["value"], width=width, color=colour)
            panel.axhline(0, **style.THIN)
            panel.set_title(title)
            panel.xaxis.set_major_locator(MultipleLocator(step))
        rank, is_bad = described.loc[feature, ["rank", "bad"]]
        note = ",\nchosen as most harmful" if is_bad else ""
        panels[0].set_ylabel(f"{feature}, rank {rank}{note}", fontweight="bold")
        panels[0].set_xlabel("YY of the prompt")
        panels[2].set_xlabel("YY" if numbers == "pairs" else "tens digit of YY")
    return figure
