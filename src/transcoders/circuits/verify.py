"""Proof that attributions are right, from algebra alone.

- :func:`completeness`: the contributions of all parts to a vector add up to its value.
- :func:`frozen_value`: the local replacement model, with a factor on what every node writes. The
  target's derivative by a factor, where all are 1, is input times gradient: the node's attribution
  over all paths. A factor of 2 adds the node's output once more.

:mod:`transcoders.circuits.ablation` measures what attribution is worth where nothing is frozen.
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
    """The sum of their sizes. Rounding errors are in proportion to it."""

    @property
    def error(self) -> Float[Tensor, " vector"]:
        """The error of the sum, as a share of the magnitude."""
        return (self.value - self.explained).abs() / self.magnitude


def completeness(local: LocalReplacementModel, vectors: FeatureVectors) -> Completeness:
    """Compare what vectors read with the sum of what all parts contribute."""
    found, passed = contributions(local, vectors), local.passed
    # (depth, token, d_model). In a parallel block, the MLP reads what the attention reads.
    points = torch.stack([passed.before_attention, passed.before_mlp], dim=1).flatten(0, 1)
    stream = torch.cat([points, passed.after[None]])[vectors.depth, vectors.token]
    return Completeness(
        value=(vectors.vector * stream).sum(dim=1) + vectors.bias,
        explained=found.values.sum(dim=1) + found.bias,
        magnitude=found.values.abs().sum(dim=1) + found.bias.abs(),
    )


@dataclass
class NodeValues:
    """A number for every node: a factor on what it writes, or its attribution."""

    features: dict[int, Float[Tensor, "token n_features"]]
    """By layer."""
    heads: Float[Tensor, "layer head token source"]
    mlps: Float[Tensor, "layer token"]
    errors: Float[Tensor, "layer token"]
    embed: Float[Tensor, " token"]

    @classmethod
    def ones(cls, local: LocalReplacementModel) -> "NodeValues":
        """Factors of 1, ready for autograd."""

        def ones(*shape: int) -> Tensor:
            return local.passed.after.new_ones(shape).requires_grad_()

        n_tokens, by_layer = local.n_tokens, (local.replacement.n_layers, local.n_tokens)
        return cls(
            {i: ones(n_tokens, t.n_features) for i, t in local.replacement.transcoders.items()},
            ones(*local.passed.patterns.shape),
            ones(*by_layer),
            ones(*by_layer),
            ones(n_tokens),
        )

    def all(self) -> list[Tensor]:
        """All tensors, for autograd."""
        return [*self.features.values(), self.heads, self.mlps, self.errors, self.embed]

    def of(self, node: Node) -> Float[Tensor, ""]:
        """A node's number."""
        match node.kind:
            case "feature":
                return self.features[node.layer][node.token, node.unit]
            case "head":
                return self.heads[node.layer, node.unit, node.token, node.source]
            case "mlp":
                return self.mlps[node.layer, node.token]
            case "error":
                return self.errors[node.layer, node.token]
            case "embed":
                return self.embed[node.token]
        raise ValueError(f"{node} writes nothing of its own")


def frozen_value(
    local: LocalReplacementModel, target: Target, scales: NodeValues
) -> Float[Tensor, ""]:
    """The target in the frozen model with these factors.

    It can be differentiated. It is dense, and so for checks only. Biases are not scaled.
    """
    replacement, passed = local.replacement, local.passed
    read_depth, token = int(target.vectors.depth), int(target.vectors.token)
    stream = scales.embed[:, None] * passed.before_attention[0]
    for layer in range(replacement.n_layers):
        before = stream
        read = stream / passed.attention_scale[layer, :, None]
        values = torch.einsum("sd,hde->hse", read, replacement.W_V[layer])
        mixed = torch.einsum("hts,hse->hte", scales.heads[layer] * passed.attention[layer], values)
        written = torch.einsum("hte,hed->td", mixed, replacement.W_O[layer])
        written += replacement.attention_bias[layer] / passed.attention_out_scale[layer, :, None]
        stream = stream + written
        mlp_stream = before if replacement.is_parallel else stream
        if read_depth == int(replacement.mlp_reads(layer)):
            return target.vectors.vector[0] @ mlp_stream[token] + target.vectors.bias[0]
        out = scales.mlps[layer, :, None] * local.mlp_out[layer] + local.bias[layer]
        if (transcoder := replacement.transcoders.get(layer)) is not None:
            normalised = replacement.centre(mlp_stream) / passed.mlp_scale[layer, :, None]
            active = transcoder.encode(passed.mlp.mlp_in[layer]) > 0
            active[: replacement.first_position] = False
            z = (normalised @ transcoder.W_enc + transcoder.b_enc) * active
            out = out + (scales.features[layer] * z) @ transcoder.W_dec
        stream = stream + out + scales.errors[layer, :, None] * local.error[layer]
    return target.vectors.vector[0] @ stream[token] + target.vectors.bias[0]


def total_attributions(local: LocalReplacementModel, target: Target) -> NodeValues:
    """Input times gradient of every node on the frozen model: its attribution over all paths."""
    scales = NodeValues.ones(local)
    with torch.enable_grad():
        value = frozen_value(local, target, scales)
    parts = torch.autograd.grad(value, scales.all(), allow_unused=True, materialize_grads=True)
    n = len(scales.features)
    return NodeValues(dict(zip(scales.features, parts[:n], strict=True)), *parts[n:])
