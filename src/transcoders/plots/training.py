"""The training curves."""

from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from transcoders.plots.style import COLOURS, LABELS, STYLE, legend_below

CURVES = {
    "fvu": "fraction of variance\nunexplained",
    "l0": "L0 (active features\nper token)",
    "dead_fraction": "features that never\nfired since the last row",
}
"""The columns of ``training.csv`` that are drawn, with the labels of their axes."""


def training_figure(curves: pd.DataFrame) -> Figure:
    """Training curves: a column a site, a row a quantity, a line a dictionary.

    Args:
        curves: the rows of every ``training.csv``, with columns ``dictionary``, ``site``, ``kind``
            and ``headline`` added. Headline dictionaries are drawn thicker.
    """
    sites = list(dict.fromkeys(curves["site"]))
    with plt.style.context(STYLE):
        figure, axes = plt.subplots(
            len(CURVES), len(sites), figsize=(3.6 * len(sites), 7), squeeze=False,
            sharex=True, sharey="row",
        )  # fmt: skip
        shown: dict[str, Any] = {}
        for column, site in enumerate(sites):
            at_site = curves[curves["site"] == site]
            for (kind, _), rows in at_site.groupby(["kind", "dictionary"], sort=False):
                for panel, quantity in zip(axes[:, column], CURVES, strict=True):
                    width = 2.2 if rows["headline"].iloc[0] else 0.9
                    (shown[LABELS[kind]],) = panel.plot(
                        rows["tokens"], rows[quantity], color=COLOURS[kind], linewidth=width
                    )
            axes[0, column].set_title(site)
            axes[-1, column].set_xlabel("tokens seen")
            axes[-1, column].xaxis.set_major_formatter(EngFormatter(sep=""))
        for panel, label in zip(axes[:, 0], CURVES.values(), strict=True):
            panel.set_ylabel(label)
        for panel in axes[:2].flat:
            panel.set_yscale("log")
            panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            panel.yaxis.set_major_formatter("{x:g}")
            panel.yaxis.set_minor_formatter(NullFormatter())
        legend = legend_below(figure, shown, "thick: the headline dictionary of its kind")
        for line in legend.get_lines():
            line.set_linewidth(1.5)
    return figure
