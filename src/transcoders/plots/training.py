"""The training curves."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from transcoders.plots import style

CURVES = {
    "fvu": "FVU (share of the\nvariance unexplained)",
    "l0": "L0 (active features a token)",
    "dead_fraction": "share that never fired",
}
"""The columns of ``training.csv`` that are drawn, with the titles of their panels."""


@style.styled
def training_figure(curves: pd.DataFrame) -> Figure:
    """Training curves: at each site a panel for each quantity, with a line for each dictionary.

    Args:
        curves: the rows of every ``training.csv``, with columns ``dictionary``, ``site``, ``kind``
            and ``headline`` added. Headline dictionaries are drawn thicker.
    """
    sites = curves.groupby("site", sort=False)
    figure, groups = style.groups_of_three(sites.ngroups, height=3.0)
    for panels, (site, at_site) in zip(groups, sites, strict=True):
        for panel, first, quantity in zip(panels, groups[0], CURVES, strict=True):
            if panel is not first:
                panel.sharex(first)
                panel.sharey(first)
            for _, rows in at_site.groupby(["kind", "dictionary"], sort=False):
                kind, headline = rows[["kind", "headline"]].iloc[0]
                panel.plot(
                    rows["tokens"], rows[quantity], linewidth=2.2 if headline else 0.9,
                    color=style.COLOURS[kind], label=style.LABELS[kind],
                )  # fmt: skip
            panel.set_title(CURVES[quantity])
            panel.xaxis.set_major_formatter(EngFormatter(sep=""))
            if quantity != "dead_fraction":
                _logarithmic(panel, (1, 2, 5) if quantity == "fvu" else (1,))
        panels[0].set_ylabel(str(site), fontweight="bold")
        panels[0].set_xlabel("tokens seen")
        panels[2].set_xlabel("tokens seen")
    legend = style.shared_legend(
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
