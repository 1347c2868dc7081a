"""Figure 3: sparsity against faithfulness."""

from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from transcoders.config import KINDS, TRAITS
from transcoders.fronts import like_headline
from transcoders.plots.style import (
    BOUND_COLOUR,
    COLOURS,
    LABELS,
    MARKERS,
    STYLE,
    legend_below,
    sparsity_label,
)  # fmt: skip

ABOVE: dict[str, Any] = {"xytext": (5, 4), "ha": "left", "va": "bottom"}
BELOW: dict[str, Any] = {"xytext": (-5, -4), "ha": "right", "va": "top"}
LABELLED_ABOVE = ("transcoder", "mlp_in_sae", "topk_sae")
"""Other kinds are labelled below their points, which keeps labels apart where fronts are close."""
L0_TICKS = [subs * 10**power for power in range(5) for subs in (1, 2, 5)]


def tradeoff_figure(evaluation: pd.DataFrame) -> Figure:
    """Figure 3: sparsity against faithfulness, a panel a site.

    Kinds that the paper does not have come in extra panels, beside the transcoders of their site.

    Args:
        evaluation: rows of ``evaluation.csv`` that can be compared. A point is a dictionary,
            labelled with its λ₁ or k; lines join the dictionaries of a kind in the order of their
            L0. Error bars go from ``ce_low`` to ``ce_high``. Dictionaries that were trained again
            with another seed are small and faint, and without a line. Horizontal lines are the
            unmodified and the mean-ablated model.
    """
    papers = evaluation["kind"].isin(KINDS)
    extended = evaluation["site"].isin(evaluation.loc[~papers, "site"])
    beside = extended & (~papers | (evaluation["kind"] == "transcoder"))
    contents = [
        (rows, remark)
        for chosen, remark in ((papers, ""), (beside, ": extensions"))
        for _, rows in evaluation[chosen].groupby("site", sort=False)
    ]
    with plt.style.context(STYLE):
        figure, axes = plt.subplots(
            1, len(contents), figsize=(3.4 * len(contents), 4.6), squeeze=False, sharex=True
        )
        for panel, (rows, remark) in zip(axes[0], contents, strict=True):
            _tradeoff_panel(panel, rows, remark)
        axes[0][0].set_ylabel("next-token cross entropy (nats)")
        topk = evaluation["l1_coefficient"].isna().any()
        shown: dict[str, Any] = {}  # by label: an extension may be at one site only
        for panel in axes[0]:
            handles, labels = panel.get_legend_handles_labels()
            shown |= dict(zip(labels, handles, strict=True))
        or_k = ", or $k$ for TopK" if topk else ""
        legend_below(figure, shown, f"numbers beside the points: $\\lambda_1${or_k}")
    return figure


def _tradeoff_panel(panel: Axes, site: pd.DataFrame, remark: str) -> None:
    panel.set_xscale("log")
    panel.set_xticks(L0_TICKS, [f"{tick:,}" for tick in L0_TICKS])
    panel.minorticks_off()
    first_run = like_headline(site, "seed")
    for kind in [kind for kind in TRAITS if kind in set(site["kind"])]:
        again = site[~first_run & (site["kind"] == kind)]
        panel.plot(
            again["l0"], again["ce"], linestyle="none", alpha=0.35,
            color=COLOURS[kind], marker=MARKERS[kind], markersize=3,
        )  # fmt: skip
        points = site[first_run & (site["kind"] == kind)].sort_values("l0")
        panel.errorbar(
            points["l0"], points["ce"],
            yerr=[points["ce"] - points["ce_low"], points["ce_high"] - points["ce"]],
            color=COLOURS[kind], marker=MARKERS[kind], label=LABELS[kind], elinewidth=0.8,
        )  # fmt: skip
        for _, point in points.iterrows():
            panel.annotate(
                sparsity_label(point), (point["l0"], point["ce"]), textcoords="offset points",
                fontsize=7, color=COLOURS[kind], **(ABOVE if kind in LABELLED_ABOVE else BELOW),
            )  # fmt: skip
    for column, text, offset, anchor in (
        ("ce_mean_ablated", "MLP output replaced by its mean", 3, "bottom"),
        ("ce_original", "unmodified model", -3, "top"),
    ):
        level = site[column].iloc[0]
        panel.axhline(level, color=BOUND_COLOUR, linestyle="--", linewidth=1)
        panel.annotate(
            text, (0.99, level), xycoords=("axes fraction", "data"), textcoords="offset points",
            xytext=(0, offset), ha="right", va=anchor, fontsize=7, color=BOUND_COLOUR,
        )  # fmt: skip
    panel.margins(x=0.15, y=0.12)
    panel.autoscale()
    first = site.iloc[0]
    panel.set_title(f"{first['model']}, layer {first['layer']}{remark}")
    panel.set_xlabel("L0 (active features per token)")
