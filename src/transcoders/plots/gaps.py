"""The gap between transcoders and SAEs: at each site, and by amount of data."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from transcoders.plots import style

LINES: dict[str, style.Look] = {
    "equal steps": {
        "label": "equal steps: fewer tokens, repeated",
        "color": "#7A4FBF", "marker": "D", "linestyle": "--",
    },
    "one pass": {"label": "one pass", "color": "#000000", "marker": "o", "linestyle": "-"},
}  # fmt: skip
"""The look of each line. The colours are those of no kind."""
BAND: style.Look = {"color": style.BOUND_COLOUR, "alpha": 0.15, "linewidth": 0}
"""The look of the band of gaps below 0 that are within the margin."""
AHEAD = 4
"""How far the fitted line is drawn, in multiples of the most tokens."""


@style.styled
def front_gap_figure(judged: pd.DataFrame) -> Figure:
    """What decides the claim of Figure 3: the paired gap at every site, against the margin.

    Args:
        judged: the rows of ``claims.csv`` with the measure ``front_gap``. A row is a site. Bars go
            from ``low`` to ``high``. A site whose fronts share no range of L0 has its name alone.
    """
    figure, panel = plt.subplots(figsize=(style.WIDTH, 1.3 + 0.6 * len(judged)))
    margin = judged["margin"].iloc[0]
    panel.axvline(0, **style.THIN)
    panel.axvspan(-margin, 0, label=f"worse by less than the margin, {margin:g}", **BAND)
    above: style.Look = {"transform": panel.get_yaxis_transform(), "va": "bottom"}
    for place, row in enumerate(judged.to_dict("records")):
        panel.errorbar(
            row["value"], place, xerr=style.error_bars(row, "value"),
            color="#000000", marker="o", capsize=3, linestyle="",
        )  # fmt: skip
        site = row["claim"].partition(":")[2].replace("_layer", ", layer ")
        panel.text(0.01, place - 0.2, f"{site}: {row['verdict']}", **above)
        if pd.notna(row["value"]):
            n = f"{row['n']:.0f} {row['resampled']}"
            look: style.Look = {"ha": "right", "size": 9, "color": style.BOUND_COLOUR}
            panel.text(0.99, place - 0.2, n, **look, **above)
    panel.set_ylim(len(judged) - 0.6, -0.8)
    panel.set_yticks([])
    panel.margins(x=0.1)
    panel.set_title("← SAE better", loc="left")
    panel.set_title("transcoder better →", loc="right")
    panel.set_xlabel("gap at equal L0, transcoder − SAE on MLP output\n(share of the MLP's worth)")
    style.shared_legend(figure, [panel])
    return figure


@style.styled
def gap_by_tokens_figure(points: pd.DataFrame, fits: pd.DataFrame, *, margin: float) -> Figure:
    """The gap by different tokens, a panel for each site.

    Args:
        points: ``gap_by_tokens.csv``. Bars go from ``low`` to ``high``.
        fits: ``gap_by_tokens_fit.csv``. The fitted line is dotted, and goes on to the right.
        margin: of the claim, drawn as a band below 0.
    """
    if points.empty:
        return plt.figure()  # no fronts share a range of L0
    sites = points.groupby("site", sort=False)
    figure, panels = style.columns_of_two(sites.ngroups, height=2.4, sharey=True)
    for panel, (site, rows) in zip(panels, sites, strict=True):
        _panel(panel, rows, fits[fits["site"] == site], margin)
    for panel in panels[::2]:
        panel.set_ylabel("gap, transcoder − SAE\n(share of the MLP's worth)")
    bars = f"bars: 95% intervals over {points['n'].iloc[0]} {points['resampled'].iloc[0]}"
    style.shared_legend(figure, panels, f"below 0 transcoders are worse, at equal L0\n{bars}")
    return figure


def _panel(panel: Axes, points: pd.DataFrame, fits: pd.DataFrame, margin: float) -> None:
    panel.axhline(0, **style.THIN)
    panel.axhspan(-margin, 0, label="within the margin", **BAND)
    for line, look in LINES.items():
        rows = points[points["line"] == line]
        reach = style.error_bars(rows, "gap")
        panel.errorbar(
            rows["tokens_different"], rows["gap"], reach, elinewidth=0.8, capsize=2, **look
        )
    once = points.loc[points["line"] == "one pass", "tokens_different"]
    fit = fits.set_index("quantity")["value"]
    tokens = np.array([once.min(), AHEAD * once.max()])
    panel.plot(
        tokens, fit["level"] + fit["slope"] * np.log2(tokens / once.max()),
        color=style.BOUND_COLOUR, linestyle=":", linewidth=1.2, label="line fitted to one pass",
    )  # fmt: skip
    panel.set_xscale("log", base=2)
    panel.set_xticks(once.iloc[::2], [EngFormatter(sep="")(float(f"{n:.2g}")) for n in once[::2]])
    panel.minorticks_off()
    first = points.iloc[0]
    panel.set(title=f"{first['model']}, layer {first['layer']}", xlabel="different training tokens")
