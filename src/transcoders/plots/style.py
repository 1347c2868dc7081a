"""The look that all figures share, and how they are saved.

A kind has the same colour and marker in every figure. The colours are those of Okabe and Ito, which
colour-blind readers can tell apart, also in greyscale.
"""

import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend

from transcoders.config import TRAITS
from transcoders.files import made_path
from transcoders.pictures import write_small

STYLE: list[str | Path] = ["default", Path(__file__).with_name("style.mplstyle")]
"""The whole look: the default resets what a user's own settings of matplotlib say."""
styled = plt.style.context(STYLE)
"""Decorates a function whose figure has this look."""
Look = dict[str, Any]
"""Colour, marker, label and the like, as matplotlib's functions take them."""
LOOKS: dict[str, Look] = {
    "transcoder": {"color": "#0072B2", "marker": "o"},
    "mlp_out_sae": {"color": "#D55E00", "marker": "s"},
    "mlp_in_sae": {"color": "#009E73", "marker": "^"},
    "skip_transcoder": {"color": "#CC79A7", "marker": "D"},
    "skip_sae": {"color": "#000000", "marker": "X"},
    "topk_transcoder": {"color": "#E69F00", "marker": "v"},
    "topk_sae": {"color": "#56B4E9", "marker": "P"},
}
"""The look of each kind."""
COLOURS = {kind: look["color"] for kind, look in LOOKS.items()}
LABELS = {kind: traits.label for kind, traits in TRAITS.items()}
BOUND_COLOUR = "#555555"
"""The colour of lines that belong to no kind, such as the unmodified model."""
THIN: Look = {"color": BOUND_COLOUR, "linewidth": 0.8}
"""A thin line that belongs to no kind."""
WIDTH = 5.5
"""The width of every figure in inches, that of a page of text. Where a screen has 400 pixels, ten
points become nine pixels."""


def columns_of_two(n: int, *, height: float, **options: Any) -> tuple[Figure, list[Axes]]:
    """A figure with ``n`` panels, two in a row, from left to right and down.

    Args:
        n: how many.
        height: of a row, in inches. The legend has an inch of its own, or the place of a panel
            where the last row is short.
        options: of :func:`matplotlib.pyplot.subplots`.
    """
    n_rows, n_columns = (n + 1) // 2, min(n, 2)
    legend = 1 if n == n_rows * n_columns else 0
    figure, grid = plt.subplots(
        n_rows, n_columns, figsize=(WIDTH, height * n_rows + legend), squeeze=False, **options
    )
    for panel in grid.flat[:n]:
        panel.tick_params(labelbottom=True)  # even if an axis is shared: the last row may be short
    for unused in grid.flat[n:]:
        unused.set_axis_off()
    return figure, list(grid.flat[:n])


def groups_of_three(n: int, *, height: float) -> tuple[Figure, list[list[Axes]]]:
    """A figure of ``n`` groups, one below the other: a high panel, and two low ones beside it.

    Args:
        n: how many groups.
        height: of a group, in inches.
    """
    mosaic: list[Any] = [[first, first + step] for first in range(0, 3 * n, 3) for step in (1, 2)]
    figure, panels = plt.subplot_mosaic(mosaic, figsize=(WIDTH, height * n))
    return figure, [[panels[3 * group + place] for place in range(3)] for group in range(n)]


def error_bars(rows: Any, value: str, low: str = "low", high: str = "high") -> np.ndarray:
    """How far intervals reach below and above their values (2, interval), for ``errorbar``.

    Args:
        rows: a table with an interval in each row, or a single row of one.
        value: the column of values.
        low: the column of lower ends.
        high: the column of upper ends.
    """
    return np.reshape([rows[value] - rows[low], rows[high] - rows[value]], (2, -1))


def sparsity_label(dictionary: "pd.Series[Any]") -> str:
    """λ₁ or k, as text. The table has k in the dictionary's name only."""
    if pd.notna(dictionary["l1_coefficient"]):
        return f"{dictionary['l1_coefficient']:g}"
    return str(dictionary["dictionary"]).rpartition("_k-")[2].partition("_")[0]


def shared_legend(figure: Figure, panels: Iterable[Axes], title: str = "") -> Legend:
    """One legend that hides nothing: every label that the panels use, once.

    It stands where a panel is missing from the last row, or else below all panels.
    """
    shown: dict[str, Any] = {}
    for panel in panels:
        handles, labels = panel.get_legend_handles_labels()
        shown |= dict(zip(labels, handles, strict=True))
    if free := [axes for axes in figure.axes if not axes.axison]:
        title = "\n".join(textwrap.fill(line, 32) for line in title.splitlines())
        names = [textwrap.fill(label, 30) for label in shown]
        return free[0].legend(list(shown.values()), names, loc="center", title=title)
    return figure.legend(
        list(shown.values()), list(shown), loc="outside lower center", ncols=2, title=title
    )


def save_figure(figure: Figure, path: Path) -> None:
    """Write ``path`` with suffixes ``.pdf`` and ``.png``, without times or versions inside.

    The same figure gives the same bytes however often it is saved. For that the layout is fixed
    first, because every drawing would move it a little. The figure is then closed, so that a
    notebook shows only the file.
    """
    if figure.get_layout_engine() is not None:
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
    with made_path(path.with_suffix(".pdf")) as temporary, plt.style.context(STYLE):
        unwanted: dict[str, None] = dict.fromkeys(["CreationDate", "Producer", "Creator"])
        figure.savefig(temporary, metadata=unwanted)
    with made_path(path.with_suffix(".png")) as temporary, plt.style.context(STYLE):
        figure.savefig(temporary)
        write_small(temporary)
    plt.close(figure)
