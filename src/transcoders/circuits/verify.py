"""Proof that attributions are right, from algebra alone.

- :func:`completeness`: what all parts contribute to a vector adds up to its value.
- :func:`frozen_value`: the model with patterns, scales and active sets as a run fixed them, and a
  gate on every node. The target's derivative by a gate at 1 is input times gradient: the node's
  attribution over all paths. Setting one gate to 2 adds that node's output again.

What attribution is worth where nothing is frozen, :mod:`transcoders.circuits.ablation` and
:mod:`transcoders.circuits.faithfulness` measure.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from transcoders.circuits.model import Run
from transcoders.circuits.notation import Node
from transcoders.circuits.vectors import FeatureVectors, Target, contributions


class Completeness(NamedTuple):
    """How well contributions add up, for each vector."""

    value: Float[Tensor, " vector"]
    """What the vector reads in the residual stream, with its bias."""
    explained: Float[Tensor, " vector"]
    """The sum of all contributions."""
    magnitude: Float[Tensor, " vector"]
    """The sum of their sizes: rounding errors are in proportion to it."""

    @property
    def error(self) -> Float[Tensor, " vector"]:
        """Of the sum, as a share of the magnitude."""
        return (self.value - self.explained).abs() / self.magnitude


def completeness(run: Run, vectors: FeatureVectors) -> Completeness:
    """Compare what vectors read with the sum of what all parts contribute."""
    found = contributions(run, vectors)
    stream = _residual(run, vectors.depth, vectors.token)
    return Completeness(
        value=(vectors.vector * stream).sum(dim=1) + vectors.bias,
        explained=found.values.sum(dim=1) + found.bias,
        magnitude=found.values.abs().sum(dim=1) + found.bias.abs(),
    )


def _residual(run: Run, depth: Tensor, token: Tensor) -> Float[Tensor, "vector d_model"]:
    """The residual stream at a depth. An MLP of a parallel block reads the attention's input."""
    passed = run.passed
    points = torch.stack([passed.before_attention, passed.before_mlp], dim=1).flatten(0, 1)
    return torch.cat([points, passed.after[None]])[depth, token]


@dataclass
class Gates:
    """A factor on what each node writes; 1 leaves it as it is."""

    features: list[Float[Tensor, "token n_features"]]
    """For each transcoder, by layer."""
    heads: Float[Tensor, "layer head token source"]
    mlps: Float[Tensor, "layer token"]
    errors: Float[Tensor, "layer token"]
    embed: Float[Tensor, " token"]

    @classmethod
    def open(cls, run: Run) -> "Gates":
        """All gates at 1, ready for autograd."""
        like, n_layers, n_tokens = run.passed.after, run.circuit.n_layers, run.n_tokens

        def ones(*shape: int) -> Tensor:
            return like.new_ones(shape).requires_grad_()

        return cls(
            [ones(n_tokens, t.n_features) for t in run.circuit.transcoders.values()],
            torch.ones_like(run.passed.patterns).requires_grad_(),
            ones(n_layers, n_tokens),
            ones(n_layers, n_tokens),
            ones(n_tokens),
        )

    def all(self) -> list[Tensor]:
        """Every gate, for autograd."""
        return [*self.features, self.heads, self.mlps, self.errors, self.embed]


def frozen_value(run: Run, target: Target, gates: Gates) -> Float[Tensor, ""]:
    """The target in the frozen model with these gates. Differentiable; dense, so for checks only.

    A head's bias passes whatever its gates are, as it does whatever a head reads.
    """
    circuit, passed = run.circuit, run.passed
    read_depth, token = int(target.vectors.depth), int(target.vectors.token)
    stream = gates.embed[:, None] * passed.before_attention[0]
    number = {layer: i for i, layer in enumerate(circuit.transcoders)}
    for layer in range(circuit.n_layers):
        before = stream
        read = stream / passed.attention_scale[layer, :, None]
        values = torch.einsum("sd,hde->hse", read, circuit.W_V[layer])
        mixed = torch.einsum("hts,hse->hte", gates.heads[layer] * passed.patterns[layer], values)
        written = torch.einsum("hte,hed->td", mixed, circuit.W_O[layer])
        stream = stream + written + circuit.attention_bias[layer]
        mlp_stream = before if circuit.is_parallel else stream
        if read_depth == int(circuit.mlp_reads(layer)):
            return target.vectors.vector[0] @ mlp_stream[token] + target.vectors.bias[0]
        out = gates.mlps[layer, :, None] * run.opaque[layer] + run.bias[layer]
        if layer in number:
            weights, first = circuit.transcoders[layer], circuit.first_position
            normalised = circuit.centre(mlp_stream) / passed.mlp_scale[layer, :, None]
            active = circuit.transcoders[layer].encode(passed.mlp.mlp_in[layer]) > 0
            active[:first] = False
            z = (normalised @ weights.W_enc + weights.b_enc) * active
            out = out + (gates.features[number[layer]] * z) @ weights.W_dec
        stream = stream + out + gates.errors[layer, :, None] * run.error[layer]
    return target.vectors.vector[0] @ stream[token] + target.vectors.bias[0]


def total_attributions(run: Run, target: Target) -> Gates:
    """Input times gradient of every node on the frozen model: its attribution over all paths."""
    gates = Gates.open(run)
    with torch.enable_grad():
        value = frozen_value(run, target, gates)
    parts = torch.autograd.grad(value, gates.all(), allow_unused=True, materialize_grads=True)
    n = len(gates.features)
    return Gates(list(parts[:n]), *parts[n:])


def attribution_of(run: Run, totals: Gates, node: Node) -> float:
    """A node's entry."""
    match node.kind:
        case "feature":
            number = list(run.circuit.transcoders).index(node.layer)
            return totals.features[number][node.token, node.unit].item()
        case "head":
            return totals.heads[node.layer, node.unit, node.token, node.source].item()
        case "mlp":
            return totals.mlps[node.layer, node.token].item()
        case "error":
            return totals.errors[node.layer, node.token].item()
        case "embed":
            return totals.embed[node.token].item()
    raise ValueError(f"{node} has no attribution of its own")
