"""The look that all figures share, and how they are saved.

A kind has the same colour and marker in every figure. The colours are those of Okabe and Ito, which
colour-blind readers can tell apart, also in greyscale.
"""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.legend import Legend

from transcoders.config import TRAITS
from transcoders.files import made_path

STYLE: list[str | Path] = ["default", Path(__file__).with_name("style.mplstyle")]
"""The whole look: the default resets what a user's own settings of matplotlib say."""
LOOKS = {
    "transcoder": ("#0072B2", "o"),
    "mlp_out_sae": ("#D55E00", "s"),
    "mlp_in_sae": ("#009E73", "^"),
    "skip_transcoder": ("#CC79A7", "D"),
    "skip_sae": ("#000000", "X"),
    "topk_transcoder": ("#E69F00", "v"),
    "topk_sae": ("#56B4E9", "P"),
}
COLOURS = {kind: colour for kind, (colour, _) in LOOKS.items()}
MARKERS = {kind: marker for kind, (_, marker) in LOOKS.items()}
LABELS = {kind: traits.label for kind, traits in TRAITS.items()}
BOUND_COLOUR = "#555555"
"""The colour of lines that belong to no kind, such as the unmodified model."""


def sparsity_label(dictionary: "pd.Series[Any]") -> str:
    """λ₁ or k, as text. The table has k in the dictionary's name only."""
    if pd.notna(dictionary["l1_coefficient"]):
        return f"{dictionary['l1_coefficient']:g}"
    return str(dictionary["dictionary"]).rpartition("_k-")[2].partition("_")[0]


def legend_below(figure: Figure, shown: dict[str, Any], title: str) -> Legend:
    """One legend for all panels, below them. ``shown`` maps each label to what it labels."""
    return figure.legend(
        list(shown.values()), list(shown),
        loc="outside lower center", ncols=len(shown), title=title, title_fontsize=8,
    )  # fmt: skip


def save_figure(figure: Figure, path: Path) -> None:
    """Write ``path`` with suffixes ``.pdf`` and ``.png``, without times or versions inside.

    The same figure gives the same bytes however often it is saved. For that the layout is fixed
    first, because every drawing would move it a little. The figure is then closed, so that a
    notebook shows only the file.
    """
    if figure.get_layout_engine() is not None:
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
    unwanted = {".pdf": ("CreationDate", "Producer", "Creator"), ".png": ("Software",)}
    for suffix, names in unwanted.items():
        metadata: dict[str, None] = dict.fromkeys(names)
        with made_path(path.with_suffix(suffix)) as temporary, plt.style.context(STYLE):
            figure.savefig(temporary, metadata=metadata)
    plt.close(figure)
