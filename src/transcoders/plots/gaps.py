"""The gap between transcoders and SAEs, by amount of data."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from transcoders.plots.style import BOUND_COLOUR, STYLE, legend_below

LINES = {
    "equal steps": ("equal steps: fewer tokens, repeated", "#7A4FBF", "D", "--"),
    "one pass": ("one pass", "#000000", "o", "-"),
}
"""Label, colour, marker and line style of each line. The colours are those of no kind."""
AHEAD = 4
"""Times the most tokens: as far as the fitted line is drawn."""


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
        figure, axes = plt.subplots(
            1, len(sites), figsize=(max(2.6 * len(sites) + 0.8, 6), 3.6), squeeze=False, sharey=True
        )
        shown: dict[str, Any] = {}
        for panel, site in zip(axes[0], sites, strict=True):
            _panel(panel, points[points["site"] == site], fits[fits["site"] == site], margin)
            handles, labels = panel.get_legend_handles_labels()
            shown |= dict(zip(labels, handles, strict=True))
        axes[0][0].set_ylabel("gap, transcoder − SAE\n(share of the MLP's worth)")
        legend_below(figure, shown, "below 0 transcoders are worse, at equal L0")
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
