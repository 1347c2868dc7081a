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

from transcoders.circuits.attention import AttentionScore as AttentionScore
from transcoders.circuits.attention import attention_score as attention_score
from transcoders.circuits.drawing import draw_graph as draw_graph
from transcoders.circuits.notation import Node as Node
from transcoders.circuits.notation import parse_head as parse_head
from transcoders.circuits.paths import ComputationalPath as ComputationalPath
from transcoders.circuits.paths import Search as Search
from transcoders.circuits.replacement import ReplacementModel as ReplacementModel
from transcoders.circuits.trace import Tracer as Tracer
