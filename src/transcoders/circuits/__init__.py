"""Circuits: which parts of a model, through which paths, make a feature fire or a logit large.

    tracer = Tracer.load("laptop")
    circuit = tracer.trace("The war lasted from 1732 to 17", "logit[5]-logit[1]@-1")
    print(circuit.table())

Read :mod:`~transcoders.circuits.replacement` (what is frozen for a prompt),
:mod:`~transcoders.circuits.vectors` (contributions and pull-backs),
:mod:`~transcoders.circuits.paths` (Algorithm 1), :mod:`~transcoders.circuits.graph`
(Algorithm 2), in this order; then
:mod:`~transcoders.circuits.invariant` (weights alone), and for what it is all worth
:mod:`~transcoders.circuits.verify`, :mod:`~transcoders.circuits.ablation` and
:mod:`~transcoders.circuits.faithfulness`.
"""

from transcoders.circuits.drawing import draw_graph
from transcoders.circuits.notation import Node, NodeKind, parse_head, parse_target
from transcoders.circuits.paths import ComputationalPath, Search
from transcoders.circuits.replacement import LocalReplacementModel, ReplacementModel
from transcoders.circuits.trace import Circuit, Tracer

__all__ = [
    "Circuit",
    "ComputationalPath",
    "LocalReplacementModel",
    "Node",
    "NodeKind",
    "ReplacementModel",
    "Search",
    "Tracer",
    "draw_graph",
    "parse_head",
    "parse_target",
]
