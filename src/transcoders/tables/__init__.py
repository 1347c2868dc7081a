"""Tables and sentences of the pages, from the tables of results: a module a page."""

from transcoders.tables.circuits import checks_table, describe_circuit, paths_table
from transcoders.tables.evaluation import (
    EVALUATION_COLUMNS,
    TRAINING_COLUMNS,
    describe_claim,
    describe_gap,
    describe_site,
    evaluation_table,
    final_values_table,
    training_curves,
)

__all__ = [
    "EVALUATION_COLUMNS",
    "TRAINING_COLUMNS",
    "checks_table",
    "describe_circuit",
    "describe_claim",
    "describe_gap",
    "describe_site",
    "evaluation_table",
    "final_values_table",
    "paths_table",
    "training_curves",
]
