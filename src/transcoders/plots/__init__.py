"""Figures, made from tables alone. Nothing here reads a model or activations."""

from transcoders.plots.circuits import controls_figure as controls_figure
from transcoders.plots.circuits import replacement_figure as replacement_figure
from transcoders.plots.circuits import steering_figure as steering_figure
from transcoders.plots.circuits import verification_figure as verification_figure
from transcoders.plots.gaps import front_gap_figure as front_gap_figure
from transcoders.plots.gaps import gap_by_tokens_figure as gap_by_tokens_figure
from transcoders.plots.greater_than import kept_figure as kept_figure
from transcoders.plots.greater_than import where_figure as where_figure
from transcoders.plots.greater_than import years_figure as years_figure
from transcoders.plots.interpretability import BASELINE as BASELINE
from transcoders.plots.interpretability import measures_figure as measures_figure
from transcoders.plots.interpretability import studies_figure as studies_figure
from transcoders.plots.style import LABELS as LABELS
from transcoders.plots.style import STYLE as STYLE
from transcoders.plots.style import save_figure as save_figure
from transcoders.plots.tradeoff import tradeoff_figure as tradeoff_figure
from transcoders.plots.training import training_figure as training_figure
