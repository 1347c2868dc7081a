"""Proof that attributions are right, from algebra alone.

- :func:`completeness`: what all parts contribute to a vector adds up to its value.
- :func:`frozen_value`: the local replacement model, with what every node writes multiplied by a
  scale. The target's derivative by a scale at 1 is input times gradient: the node's attribution
  over all paths. Setting one scale to 2 adds that node's output again.

What attribution is worth where nothing is frozen, :mod:`transcoders.circuits.ablation` and
:mod:`transcoders.circuits.faithfulness` measure.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from transcoders.circuits.notation import Node
from transcoders.circuits.replacement import LocalReplacementModel
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


def completeness(local: LocalReplacementModel, vectors: FeatureVectors) -> Completeness:
    """Compare what vectors read with the sum of what all parts contribute."""
    found = contributions(local, vectors)
    stream = _residual(local, vectors.depth, vectors.token)
    return Completeness(
        value=(vectors.vector * stream).sum(dim=1) + vectors.bias,
        explained=found.values.sum(dim=1) + found.bias,
        magnitude=found.values.abs().sum(dim=1) + found.bias.abs(),
    )


def _residual(
    local: LocalReplacementModel, depth: Tensor, token: Tensor
) -> Float[Tensor, "vector d_model"]:
    """The residual stream at a depth. An MLP of a parallel block reads the attention's input."""
    passed = local.passed
    points = torch.stack([passed.before_attention, passed.before_mlp], dim=1).flatten(0, 1)
    return torch.cat([points, passed.after[None]])[depth, token]


@dataclass
class NodeValues:
    """A number for every node: a factor on what it writes, or its attribution."""

    features: list[Float[Tensor, "token n_features"]]
    """For each transcoder, by layer."""
    heads: Float[Tensor, "layer head token source"]
    mlps: Float[Tensor, "layer token"]
    errors: Float[Tensor, "layer token"]
    embed: Float[Tensor, " token"]

    @classmethod
    def ones(cls, local: LocalReplacementModel) -> "NodeValues":
        """All 1, ready for autograd."""
        like, n_layers, n_tokens = local.passed.after, local.circuit.n_layers, local.n_tokens

        def one(*shape: int) -> Tensor:
            return like.new_ones(shape).requires_grad_()

        return cls(
            [one(n_tokens, t.n_features) for t in local.circuit.transcoders.values()],
            torch.ones_like(local.passed.patterns).requires_grad_(),
            one(n_layers, n_tokens),
            one(n_layers, n_tokens),
            one(n_tokens),
        )

    def all(self) -> list[Tensor]:
        """Every number, for autograd."""
        return [*self.features, self.heads, self.mlps, self.errors, self.embed]


def frozen_value(
    local: LocalReplacementModel, target: Target, scales: NodeValues
) -> Float[Tensor, ""]:
    """The target in the frozen model with these scales. Differentiable; dense, so for checks only.

    A head's bias passes whatever its scale, as it does whatever the head reads.
    """
    circuit, passed = local.circuit, local.passed
    read_depth, token = int(target.vectors.depth), int(target.vectors.token)
    stream = scales.embed[:, None] * passed.before_attention[0]
    number = {layer: i for i, layer in enumerate(circuit.transcoders)}
    for layer in range(circuit.n_layers):
        before = stream
        read = stream / passed.attention_scale[layer, :, None]
        values = torch.einsum("sd,hde->hse", read, circuit.W_V[layer])
        mixed = torch.einsum("hts,hse->hte", scales.heads[layer] * passed.attention[layer], values)
        written = torch.einsum("hte,hed->td", mixed, circuit.W_O[layer])
        written += circuit.attention_bias[layer] / passed.attention_out_scale[layer, :, None]
        stream = stream + written
        mlp_stream = before if circuit.is_parallel else stream
        if read_depth == int(circuit.mlp_reads(layer)):
            return target.vectors.vector[0] @ mlp_stream[token] + target.vectors.bias[0]
        out = scales.mlps[layer, :, None] * local.mlp_out[layer] + local.bias[layer]
        if layer in number:
            transcoder, first = circuit.transcoders[layer], circuit.first_position
            normalised = circuit.centre(mlp_stream) / passed.mlp_scale[layer, :, None]
            active = transcoder.encode(passed.mlp.mlp_in[layer]) > 0
            active[:first] = False
            z = (normalised @ transcoder.W_enc + transcoder.b_enc) * active
            out = out + (scales.features[number[layer]] * z) @ transcoder.W_dec
        stream = stream + out + scales.errors[layer, :, None] * local.error[layer]
    return target.vectors.vector[0] @ stream[token] + target.vectors.bias[0]


def total_attributions(local: LocalReplacementModel, target: Target) -> NodeValues:
    """Input times gradient of every node on the frozen model: its attribution over all paths."""
    scales = NodeValues.ones(local)
    with torch.enable_grad():
        value = frozen_value(local, target, scales)
    parts = torch.autograd.grad(value, scales.all(), allow_unused=True, materialize_grads=True)
    n = len(scales.features)
    return NodeValues(list(parts[:n]), *parts[n:])


def attribution_of(local: LocalReplacementModel, totals: NodeValues, node: Node) -> float:
    """A node's entry."""
    match node.kind:
        case "feature":
            number = list(local.circuit.transcoders).index(node.layer)
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
