"""Figures from tables: a module a figure. Nothing here reads a model or activations."""

from transcoders.plots.circuits import verification_figure
from transcoders.plots.greater_than import kept_figure, where_figure, years_figure
from transcoders.plots.interpretability import BASELINE, measures_figure, studies_figure
from transcoders.plots.style import COLOURS, LABELS, MARKERS, STYLE, save_figure, sparsity_label
from transcoders.plots.tradeoff import tradeoff_figure
from transcoders.plots.training import training_figure

__all__ = [
    "BASELINE",
    "COLOURS",
    "LABELS",
    "MARKERS",
    "STYLE",
    "kept_figure",
    "measures_figure",
    "save_figure",
    "sparsity_label",
    "studies_figure",
    "tradeoff_figure",
    "training_figure",
    "verification_figure",
    "where_figure",
    "years_figure",
]
