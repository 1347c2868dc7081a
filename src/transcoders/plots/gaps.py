"""The gap between transcoders and SAEs: at each site, and by amount of data."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from transcoders.plots.style import BOUND_COLOUR, STYLE, WIDTH, columns_of_two, legend_below

LINES = {
    "equal steps": ("equal steps: fewer tokens, repeated", "#7A4FBF", "D", "--"),
    "one pass": ("one pass", "#000000", "o", "-"),
}
"""Label, colour, marker and line style of each line. The colours are those of no kind."""
AHEAD = 4
"""Times the most tokens: as far as the fitted line is drawn."""


def front_gap_figure(judged: pd.DataFrame) -> Figure:
    """What decides the claim of Figure 3: the paired gap at every site, against the margin.

    Args:
        judged: the rows of ``claims.csv`` with the measure ``front_gap``. A row is a site. Bars go
            from ``low`` to ``high``. A site whose fronts share no range of L0 has its name alone.
    """
    with plt.style.context(STYLE):
        figure, panel = plt.subplots(figsize=(WIDTH, 1.3 + 0.6 * len(judged)))
        margin = judged["margin"].iloc[0]
        panel.axvline(0, color=BOUND_COLOUR, linewidth=0.8)
        panel.axvspan(
            -margin, 0, color=BOUND_COLOUR, alpha=0.15, linewidth=0,
            label=f"worse by less than the margin, {margin:g}",
        )  # fmt: skip
        for place, row in enumerate(judged.to_dict("records")):
            value = row["value"]
            panel.errorbar(
                value, place, xerr=[[value - row["low"]], [row["high"] - value]],
                color="#000000", marker="o", capsize=3, linestyle="",
            )  # fmt: skip
            site = row["claim"].partition(":")[2].replace("_layer", ", layer ")
            above: dict[str, Any] = {"transform": panel.get_yaxis_transform(), "va": "bottom"}
            panel.text(0.01, place - 0.2, f"{site}: {row['verdict']}", **above)
            if pd.notna(value):
                n = f"{row['n']:.0f} {row['resampled']}"
                panel.text(0.99, place - 0.2, n, ha="right", color=BOUND_COLOUR, **above)
        panel.set_ylim(len(judged) - 0.6, -0.8)
        panel.set_yticks([])
        panel.margins(x=0.1)
        panel.set_title("← SAE better", loc="left")
        panel.set_title("transcoder better →", loc="right")
        panel.set_xlabel(
            "gap at equal L0, transcoder − SAE on MLP output\n(share of the MLP's worth)"
        )
        legend_below(figure, [panel])
    return figure


def gap_by_tokens_figure(points: pd.DataFrame, fits: pd.DataFrame, *, margin: float) -> Figure:
    """The gap by different tokens, a panel a site.

    Args:
        points: ``gap_by_tokens.csv``. Bars go from ``low`` to ``high``.
        fits: ``gap_by_tokens_fit.csv``. The fitted line is dotted, and goes on to the right.
        margin: of the claim, drawn as a band below 0.
    """
    sites = list(dict.fromkeys(points["site"]))
    with plt.style.context(STYLE):
        if not sites:
            return plt.figure()  # no fronts share a range of L0
        figure, panels = columns_of_two(len(sites), height=2.4, sharey=True)
        for panel, site in zip(panels, sites, strict=True):
            _panel(panel, points[points["site"] == site], fits[fits["site"] == site], margin)
        for panel in panels[::2]:
            panel.set_ylabel("gap, transcoder − SAE\n(share of the MLP's worth)")
        legend_below(
            figure, panels,
            "below 0 transcoders are worse, at equal L0\n"
            f"bars: 95% intervals over {points['n'].iloc[0]} {points['resampled'].iloc[0]}",
        )  # fmt: skip
    return figure


def _panel(panel: Axes, points: pd.DataFrame, fits: pd.DataFrame, margin: float) -> None:
    panel.axhline(0, color=BOUND_COLOUR, linewidth=0.8)
    panel.axhspan(
        -margin, 0, color=BOUND_COLOUR, alpha=0.15, linewidth=0, label="within the margin"
    )
    for line, (label, colour, marker, style) in LINES.items():
        of_line = points[points["line"] == line]
        panel.errorbar(
            of_line["tokens_different"], of_line["gap"],
            yerr=[of_line["gap"] - of_line["low"], of_line["high"] - of_line["gap"]],
            color=colour, marker=marker, linestyle=style, label=label, elinewidth=0.8, capsize=2,
        )  # fmt: skip
    once = points.loc[points["line"] == "one pass", "tokens_different"]
    of = fits.set_index("quantity")["value"]
    tokens = np.array([once.min(), AHEAD * once.max()])
    panel.plot(
        tokens, of["level"] + of["slope"] * np.log2(tokens / once.max()),
        color=BOUND_COLOUR, linestyle=":", linewidth=1.2, label="line fitted to one pass",
    )  # fmt: skip
    panel.set_xscale("log", base=2)
    panel.set_xticks(once.iloc[::2], [EngFormatter(sep="")(float(f"{n:.2g}")) for n in once[::2]])
    panel.minorticks_off()
    first = points.iloc[0]
    panel.set(title=f"{first['model']}, layer {first['layer']}", xlabel="different training tokens")
