"""The training curves."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from transcoders.plots.style import COLOURS, LABELS, STYLE, groups_of_three, legend_below

CURVES = {
    "fvu": "FVU (share of the\nvariance unexplained)",
    "l0": "L0 (active features a token)",
    "dead_fraction": "share that never fired",
}
"""The columns of ``training.csv`` that are drawn, with the titles of their panels."""


def training_figure(curves: pd.DataFrame) -> Figure:
    """Training curves: three panels a site, one for each quantity; a line a dictionary.

    Args:
        curves: the rows of every ``training.csv``, with columns ``dictionary``, ``site``, ``kind``
            and ``headline`` added. Headline dictionaries are drawn thicker.
    """
    sites = list(dict.fromkeys(curves["site"]))
    with plt.style.context(STYLE):
        figure, groups = groups_of_three(len(sites), height=3.0)
        for panels, site in zip(groups, sites, strict=True):
            at_site = curves[curves["site"] == site]
            for panel, first, (quantity, label) in zip(
                panels, groups[0], CURVES.items(), strict=True
            ):
                if panel is not first:
                    panel.sharex(first)
                    panel.sharey(first)
                for (kind, _), rows in at_site.groupby(["kind", "dictionary"], sort=False):
                    width = 2.2 if rows["headline"].iloc[0] else 0.9
                    panel.plot(
                        rows["tokens"], rows[quantity],
                        color=COLOURS[kind], linewidth=width, label=LABELS[kind],
                    )  # fmt: skip
                panel.set_title(label)
                panel.xaxis.set_major_formatter(EngFormatter(sep=""))
                if quantity != "dead_fraction":
                    _logarithmic(panel, (1, 2, 5) if quantity == "fvu" else (1,))
            panels[0].set_ylabel(site, fontweight="bold")
            panels[0].set_xlabel("tokens seen")
            panels[2].set_xlabel("tokens seen")
        legend = legend_below(
            figure, [panels[0] for panels in groups], "thick: the headline dictionary of its kind"
        )
        for line in legend.get_lines():
            line.set_linewidth(1.5)
    return figure


def _logarithmic(panel: Axes, subs: tuple[int, ...]) -> None:
    panel.set_yscale("log")
    panel.yaxis.set_major_locator(LogLocator(subs=subs, numticks=12))
    panel.yaxis.set_major_formatter("{x:g}")
    panel.yaxis.set_minor_formatter(NullFormatter())
