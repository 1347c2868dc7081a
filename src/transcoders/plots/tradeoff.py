"""Figure 3: sparsity against faithfulness."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from transcoders.config import KINDS, TRAITS
from transcoders.fronts import like_headline
from transcoders.plots import style

BOUNDS: dict[str, style.Look] = {
    "ce_mean_ablated": {"label": "MLP output replaced by its mean", "linestyle": "--"},
    "ce_original": {"label": "unmodified model", "linestyle": ":"},
}
"""The look of each horizontal line."""
FOOT = 0.075
"""The height of a line of text at the foot of a panel, as a share of the panel."""
L0_TICKS = [subs * 10**power for power in range(5) for subs in (1, 2, 5)]


@style.styled
def tradeoff_figure(evaluation: pd.DataFrame, *, n_documents: int) -> Figure:
    """Figure 3: sparsity against faithfulness, a panel for each site.

    Kinds that the paper does not have come in extra panels, beside the transcoders of their site.

    Args:
        evaluation: rows of ``evaluation.csv`` that can be compared. A point is a dictionary. Its λ₁
            or k stands at the foot of the panel, below the point, where it covers nothing. Lines
            join the dictionaries of a kind in the order of their L0. Error bars go from ``ce_low``
            to ``ce_high``. Dictionaries that were trained again with another seed are small and
            faint, and without a line.
        n_documents: how many documents the error bars are over.
    """
    papers = evaluation["kind"].isin(KINDS)
    extended = evaluation["site"].isin(evaluation.loc[~papers, "site"])
    beside = extended & (~papers | (evaluation["kind"] == "transcoder"))
    contents = [
        (rows, remark)
        for chosen, remark in ((papers, ""), (beside, ":\nextensions"))
        for _, rows in evaluation[chosen].groupby("site", sort=False)
    ]
    figure, panels = style.columns_of_two(len(contents), height=2.9, sharex=True)
    for panel, (rows, remark) in zip(panels, contents, strict=True):
        _tradeoff_panel(panel, rows, remark)
    for panel in panels[::2]:
        panel.set_ylabel("cross entropy (nats a token)")
    or_k = ", or $k$ for TopK" if evaluation["l1_coefficient"].isna().any() else ""
    bars = f"bars: 95% intervals over {n_documents} documents"
    style.shared_legend(figure, panels, f"numbers at the foot: $\\lambda_1${or_k}\n{bars}")
    figure.draw_without_rendering()  # only now is it known how wide texts are
    for panel in panels:
        _hide_crowded(panel)
    return figure


def _tradeoff_panel(panel: Axes, site: pd.DataFrame, remark: str) -> None:
    panel.set_xscale("log")
    panel.set_xticks(L0_TICKS, [f"{tick:,}" for tick in L0_TICKS])
    panel.minorticks_off()
    first_run = like_headline(site, "seed")
    kinds = [kind for kind in TRAITS if kind in set(site["kind"])]
    for row, kind in zip(reversed(range(len(kinds))), kinds, strict=True):
        again = site[~first_run & (site["kind"] == kind)]
        faint: style.Look = {**style.LOOKS[kind], "markersize": 3, "alpha": 0.35}
        panel.plot(again["l0"], again["ce"], linestyle="none", **faint)
        points = site[first_run & (site["kind"] == kind)].sort_values("l0")
        reach = style.error_bars(points, "ce", "ce_low", "ce_high")
        look: style.Look = {**style.LOOKS[kind], "label": style.LABELS[kind], "elinewidth": 0.8}
        panel.errorbar(points["l0"], points["ce"], reach, **look)
        for _, point in points.iterrows():
            panel.text(
                point["l0"], (row + 0.3) * FOOT, style.sparsity_label(point), fontsize=9,
                ha="center", color=style.COLOURS[kind], transform=panel.get_xaxis_transform(),
            )  # fmt: skip
    for column, look in BOUNDS.items():
        panel.axhline(site[column].iloc[0], color=style.BOUND_COLOUR, linewidth=1, **look)
    panel.margins(x=0.15, y=0.06)
    panel.autoscale()
    low, high = panel.get_ylim()
    foot = FOOT * (len(kinds) + 0.3)
    panel.set_ylim(low - (high - low) * foot / (1 - foot), high)
    ticks = MaxNLocator(4).tick_values(low, high)
    panel.set_yticks([tick for tick in ticks if low <= tick <= high])
    first = site.iloc[0]
    panel.set_title(f"{first['model']}, layer {first['layer']}{remark}")
    panel.set_xlabel("L0 (active features a token)")


def _hide_crowded(panel: Axes) -> None:
    """Hide numbers at the foot that would touch the one before them."""
    ends: dict[float, float] = {}
    for text in panel.texts:
        box = text.get_window_extent()
        text.set_visible(box.x0 > ends.get(box.y0, 0.0))
        if text.get_visible():
            ends[box.y0] = box.x1 + 2
