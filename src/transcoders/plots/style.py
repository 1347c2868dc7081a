"""The look that all figures share, and how they are saved.

A kind has the same colour and marker in every figure; the colours are Okabe and Ito's, which stay
apart for colour-blind readers and in greyscale.
"""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from transcoders.config import TRAITS
from transcoders.files import made_path

STYLE = Path(__file__).with_name("style.mplstyle")
COLOURS = {
    "transcoder": "#0072B2",
    "mlp_out_sae": "#D55E00",
    "mlp_in_sae": "#009E73",
    "skip_transcoder": "#CC79A7",
    "topk_transcoder": "#E69F00",
    "topk_sae": "#56B4E9",
}
MARKERS = {
    "transcoder": "o",
    "mlp_out_sae": "s",
    "mlp_in_sae": "^",
    "skip_transcoder": "D",
    "topk_transcoder": "v",
    "topk_sae": "P",
}
LABELS = {kind: traits.label for kind, traits in TRAITS.items()}
BOUND_COLOUR = "#555555"
"""Of lines that are no kind's: the unmodified model, and the like."""


def sparsity_label(dictionary: "pd.Series[Any]") -> str:
    """λ₁, or k, which the table has in the dictionary's name alone."""
    if pd.notna(dictionary["l1_coefficient"]):
        return f"{dictionary['l1_coefficient']:g}"
    return str(dictionary["dictionary"]).rpartition("k-")[2]


def save_figure(figure: Figure, path: Path) -> None:
    """Write ``path`` with suffixes ``.pdf`` and ``.png``, without times or versions inside.

    The same figure gives the same bytes, however often it is drawn or saved: the layout is settled
    once, since every drawing moves it a little. The figure is closed, so a notebook shows it only
    where it shows the file.
    """
    if figure.get_layout_engine() is not None:
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
    for suffix, metadata in (
        (".pdf", {"CreationDate": None, "Producer": None, "Creator": None}),
        (".png", {"Software": None}),
    ):
        with made_path(path.with_suffix(suffix)) as temporary, plt.style.context(STYLE):
            figure.savefig(temporary, metadata=metadata)
    plt.close(figure)
