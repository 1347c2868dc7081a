"""Circuits: which parts of a model, through which paths, make a feature fire or a logit large.

    tracer = Tracer.load("laptop")
    circuit = tracer.trace("The war lasted from 1732 to 17", "logit[5]-logit[1]@-1")
    print(circuit.table())

Read in this order: :mod:`~transcoders.circuits.replacement` (what is frozen for a prompt),
:mod:`~transcoders.circuits.vectors` (contributions and pull-backs),
:mod:`~transcoders.circuits.paths` (Algorithm 1), :mod:`~transcoders.circuits.graph` (Algorithm 2),
:mod:`~transcoders.circuits.attention` (why heads attend),
:mod:`~transcoders.circuits.invariant` (weights alone). The checks are in
:mod:`~transcoders.circuits.verify` (algebra), :mod:`~transcoders.circuits.ablation` and
:mod:`~transcoders.circuits.faithfulness` (the real model); :mod:`~transcoders.circuits.controls`,
:mod:`~transcoders.circuits.steering` and :mod:`~transcoders.circuits.quality` ask what a circuit is
worth.
"""

from transcoders.circuits.attention import AttentionScore, attention_score
from transcoders.circuits.drawing import draw_graph
from transcoders.circuits.notation import Node, parse_head
from transcoders.circuits.paths import ComputationalPath, Search
from transcoders.circuits.replacement import ReplacementModel
from transcoders.circuits.trace import Tracer

__all__ = [
    "AttentionScore", "ComputationalPath", "Node", "ReplacementModel", "Search", "Tracer",
    "attention_score", "draw_graph", "parse_head",
]  # fmt: skip
