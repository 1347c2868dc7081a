"""Figure 3: sparsity against faithfulness."""

from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from transcoders.config import KINDS, TRAITS
from transcoders.plots.style import (
    BOUND_COLOUR,
    COLOURS,
    LABELS,
    MARKERS,
    STYLE,
    sparsity_label,
)

LABEL_PLACES: dict[str, dict[str, Any]] = {  # apart from each other where fronts are close
    "transcoder": {"xytext": (5, 4), "ha": "left", "va": "bottom"},
    "mlp_out_sae": {"xytext": (-5, -4), "ha": "right", "va": "top"},
    "mlp_in_sae": {"xytext": (5, 4), "ha": "left", "va": "bottom"},
    "skip_transcoder": {"xytext": (-5, -4), "ha": "right", "va": "top"},
    "topk_transcoder": {"xytext": (-5, -4), "ha": "right", "va": "top"},
    "topk_sae": {"xytext": (5, 4), "ha": "left", "va": "bottom"},
}
L0_TICKS = [subs * 10**power for power in range(5) for subs in (1, 2, 5)]


def tradeoff_figure(evaluation: pd.DataFrame) -> Figure:
    """Figure 3: sparsity against faithfulness, a panel a site.

    Kinds that the paper does not have follow in panels of their own, with the transcoders of the
    site to compare them with.

    Args:
        evaluation: the rows of ``evaluation.csv``. Points are dictionaries, joined per kind in the
            order of their L0, labelled with their λ₁ or k; error bars are ``ce_low`` to
            ``ce_high``; horizontal lines are the unmodified and the mean-ablated model.
    """
    papers = evaluation["kind"].isin(KINDS)
    extended = evaluation["site"].isin(evaluation.loc[~papers, "site"])
    contents = [
        *[(rows, "") for _, rows in evaluation[papers].groupby("site", sort=False)],
        *[
            (rows, ": extensions")
            for _, rows in evaluation[
                extended & (~papers | (evaluation["kind"] == "transcoder"))
            ].groupby("site", sort=False)
        ],
    ]
    with plt.style.context(STYLE):
        figure, axes = plt.subplots(
            1, len(contents), figsize=(3.4 * len(contents), 4.6), squeeze=False, sharex=True
        )
        for panel, (rows, remark) in zip(axes[0], contents, strict=True):
            _tradeoff_panel(panel, rows, remark)
        axes[0][0].set_ylabel("next-token cross entropy (nats)")
        topk = evaluation["l1_coefficient"].isna().any()
        shown: dict[str, Any] = {}  # by label: extensions may be at one site only
        for panel in axes[0]:
            handles, labels = panel.get_legend_handles_labels()
            shown |= dict(zip(labels, handles, strict=True))
        figure.legend(
            list(shown.values()),
            list(shown),
            loc="outside lower center",
            ncols=len(shown),
            title="numbers beside the points: $\\lambda_1$" + (", or $k$ for TopK" if topk else ""),
            title_fontsize=8,
        )
    return figure


def _tradeoff_panel(panel: Axes, site: pd.DataFrame, remark: str) -> None:
    panel.set_xscale("log")
    panel.set_xticks(L0_TICKS, [f"{tick:,}" for tick in L0_TICKS])
    panel.minorticks_off()
    for kind in [kind for kind in TRAITS if kind in set(site["kind"])]:
        points = site[site["kind"] == kind].sort_values("l0")
        panel.errorbar(
            points["l0"],
            points["ce"],
            yerr=[points["ce"] - points["ce_low"], points["ce_high"] - points["ce"]],
            color=COLOURS[kind],
            marker=MARKERS[kind],
            label=LABELS[kind],
            elinewidth=0.8,
        )
        for _, point in points.iterrows():
            panel.annotate(
                sparsity_label(point),
                (point["l0"], point["ce"]),
                textcoords="offset points",
                fontsize=7,
                color=COLOURS[kind],
                **LABEL_PLACES[kind],
            )
    for column, text, below in (
        ("ce_mean_ablated", "MLP output replaced by its mean", False),
        ("ce_original", "unmodified model", True),
    ):
        level = site[column].iloc[0]
        panel.axhline(level, color=BOUND_COLOUR, linestyle="--", linewidth=1)
        panel.annotate(
            text,
            (0.99, level),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            xytext=(0, -3 if below else 3),
            ha="right",
            va="top" if below else "bottom",
            fontsize=7,
            color=BOUND_COLOUR,
        )
    panel.margins(x=0.15, y=0.12)
    panel.autoscale()
    first = site.iloc[0]
    panel.set_title(f"{first['model']}, layer {first['layer']}{remark}")
    panel.set_xlabel("L0 (active features per token)")
