"""Tables and sentences of the pages, made from the tables of results: a module for each page."""

from transcoders.tables.circuits import checks_table as checks_table
from transcoders.tables.circuits import describe_circuit as describe_circuit
from transcoders.tables.circuits import labels_table as labels_table
from transcoders.tables.circuits import paths_table as paths_table
from transcoders.tables.evaluation import by_source_table as by_source_table
from transcoders.tables.evaluation import circuit_sites_table as circuit_sites_table
from transcoders.tables.evaluation import describe_site as describe_site
from transcoders.tables.evaluation import evaluation_table as evaluation_table
from transcoders.tables.evaluation import final_values_table as final_values_table
from transcoders.tables.evaluation import training_curves as training_curves
from transcoders.tables.evidence import comparisons_table as comparisons_table
from transcoders.tables.evidence import describe_evidence as describe_evidence
from transcoders.tables.evidence import steering_table as steering_table
from transcoders.tables.evidence import summarise_circuits as summarise_circuits
