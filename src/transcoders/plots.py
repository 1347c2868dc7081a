"""Figures from tables. Nothing here reads a model or activations.

A kind has the same colour and marker in every figure; the colours are Okabe and Ito's, which stay
apart for colour-blind readers and in greyscale.
"""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter, NullLocator

from transcoders.config import KINDS, TRAITS
from transcoders.files import atomic_path

STYLE = Path(__file__).with_name("style.mplstyle")
COLOURS = {
    "transcoder": "#0072B2",
    "mlp_out_sae": "#D55E00",
    "mlp_in_sae": "#009E73",
    "skip_transcoder": "#CC79A7",
    "topk_transcoder": "#E69F00",
}
MARKERS = {
    "transcoder": "o",
    "mlp_out_sae": "s",
    "mlp_in_sae": "^",
    "skip_transcoder": "D",
    "topk_transcoder": "v",
}
LABELS = {kind: traits.label for kind, traits in TRAITS.items()}
LABEL_PLACES: dict[str, dict[str, Any]] = {  # apart from each other where fronts are close
    "transcoder": {"xytext": (5, 4), "ha": "left", "va": "bottom"},
    "mlp_out_sae": {"xytext": (-5, -4), "ha": "right", "va": "top"},
    "mlp_in_sae": {"xytext": (5, 4), "ha": "left", "va": "bottom"},
    "skip_transcoder": {"xytext": (-5, -4), "ha": "right", "va": "top"},
    "topk_transcoder": {"xytext": (-5, -4), "ha": "right", "va": "top"},
}
NODE_STYLES = {
    "feature": ("feature", "#0072B2", "o"),
    "head": ("head", "#E69F00", "s"),
    "mlp": ("MLP without a transcoder", "#666666", "^"),
}
BOUND_COLOUR = "#555555"
PART_TICKS = [0, 1, 8, 64, 512, 4096]
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


CURVES = {
    "fvu": "fraction of variance\nunexplained",
    "l0": "L0 (active features\nper token)",
    "dead_fraction": "features that never\nfired since the last row",
}
"""Columns of ``training.csv`` that are drawn, and the labels of their axes."""


def training_figure(curves: pd.DataFrame) -> Figure:
    """Training curves: a column a site, a row a quantity, a line a dictionary.

    Args:
        curves: the rows of every ``training.csv``, with the columns of :func:`sparsity_label`,
            ``site``, ``kind`` and ``headline`` added. Headline dictionaries are drawn thicker.
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
                    (shown[LABELS[kind]],) = panel.plot(
                        rows["tokens"],
                        rows[quantity],
                        color=COLOURS[kind],
                        linewidth=2.2 if rows["headline"].iloc[0] else 0.9,
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
        legend = figure.legend(
            list(shown.values()),
            list(shown),
            loc="outside lower center",
            ncols=len(shown),
            title="thick: the headline dictionary of its kind",
            title_fontsize=8,
        )
        for line in legend.get_lines():
            line.set_linewidth(1.5)
    return figure


def sparsity_label(dictionary: "pd.Series[Any]") -> str:
    """λ₁, or k, which the table has in the dictionary's name alone."""
    if pd.notna(dictionary["l1_coefficient"]):
        return f"{dictionary['l1_coefficient']:g}"
    return str(dictionary["dictionary"]).rpartition("k-")[2]


def save_figure(figure: Figure, path: Path) -> None:
    """Write ``path`` with suffixes ``.pdf`` and ``.png``, without times or versions inside.

    The same figure gives the same bytes, however often it is drawn or saved: the layout is settled
    once, since every drawing moves it a little.
    """
    if figure.get_layout_engine() is not None:
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
    for suffix, metadata in (
        (".pdf", {"CreationDate": None, "Producer": None, "Creator": None}),
        (".png", {"Software": None}),
    ):
        with atomic_path(path.with_suffix(suffix)) as temporary, plt.style.context(STYLE):
            figure.savefig(temporary, metadata=metadata)


def verification_figure(circuits: dict[str, tuple[pd.DataFrame, pd.DataFrame, int]]) -> Figure:
    """Circuits against the real model: a row a circuit.

    Left, what ablating each node costs the target against its attribution; right, how much of the
    target is left with only the most influential nodes, and without them.

    Args:
        circuits: ``ablation.csv``, ``faithfulness.csv`` and the number of parts of each, by name.
    """
    with plt.style.context(STYLE):
        figure, axes = plt.subplots(
            len(circuits),
            2,
            figsize=(7.2, 3.0 * len(circuits)),
            squeeze=False,
            layout="tight",
        )
        for (name, (effects, curve, n_parts)), (left, right) in zip(
            circuits.items(), axes, strict=True
        ):
            for kind, (label, colour, marker) in NODE_STYLES.items():
                of_kind = effects[effects["kind"] == kind]
                left.scatter(
                    of_kind["attribution"], of_kind["effect"],
                    s=18, color=colour, marker=marker, label=label, alpha=0.8, linewidth=0,
                )  # fmt: skip
            left.axline((0, 0), slope=1, color=BOUND_COLOUR, linestyle="--", linewidth=0.8)
            left.set(
                title=name, xlabel="attribution",
                ylabel="fall of the target when ablated",
            )  # fmt: skip
            left.legend(loc="upper left", fontsize="x-small")
            for column, label, kind in (
                ("faithfulness", "only these", "transcoder"),
                ("completeness", "all but these", "mlp_out_sae"),
            ):
                right.plot(
                    curve["n_nodes"], curve[column],
                    color=COLOURS[kind], marker=MARKERS[kind], label=label,
                )  # fmt: skip
            for level in (0, 1):
                right.axhline(level, color=BOUND_COLOUR, linestyle=":", linewidth=0.8)
            right.axvline(
                n_parts, color=BOUND_COLOUR, linestyle="--", linewidth=0.8,
                label=f"the circuit found: {n_parts} parts",
            )  # fmt: skip
            right.set_xscale("symlog", base=2, linthresh=1)
            right.set_xlim(-0.5, 1.5 * curve["n_nodes"].max())
            right.set_xticks(PART_TICKS, [f"{n:,}" for n in PART_TICKS])
            right.xaxis.set_minor_locator(NullLocator())
            right.set(xlabel="parts, the most influential first", ylabel="share of the target left")
            right.legend(fontsize="x-small", frameon=True, framealpha=0.9, edgecolor="none")
    return figure
