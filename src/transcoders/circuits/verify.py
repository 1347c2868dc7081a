"""Proof that attributions are right, from algebra alone.

- :func:`completeness`: the contributions of all parts to a vector add up to its value.
- :func:`frozen_value`: the local replacement model, with a factor on what every node writes. The
  target's derivative by a factor, where all are 1, is input times gradient: the node's attribution
  over all paths. A factor of 2 adds the node's output once more.

:mod:`transcoders.circuits.ablation` measures what attribution is worth where nothing is frozen.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from transcoders.circuits.notation import NodeKind
from transcoders.circuits.replacement import LocalReplacementModel
from transcoders.circuits.vectors import FeatureVectors, Target, contributions


class Completeness(NamedTuple):
    """How well contributions add up, for each vector."""

    value: Float[Tensor, " vector"]
    """What the vector reads in the residual stream, with its bias."""
    magnitude: Float[Tensor, " vector"]
    """The sum of the sizes of all contributions. Rounding errors are in proportion to it."""
    error: Float[Tensor, " vector"]
    """How far the value is from the sum of all contributions, as a share of the magnitude."""


def completeness(local: LocalReplacementModel, vectors: FeatureVectors) -> Completeness:
    """Compare what vectors read with the sum of what all parts contribute."""
    found, passed = contributions(local, vectors), local.passed
    # (depth, token, d_model). In a parallel block, the MLP reads what the attention reads.
    points = torch.stack([passed.before_attention, passed.before_mlp], dim=1).flatten(0, 1)
    stream = torch.cat([points, passed.after[None]])[vectors.depth, vectors.token]
    value = (vectors.vector * stream).sum(dim=1) + vectors.bias
    explained = found.values.sum(dim=1) + found.bias
    magnitude = found.values.abs().sum(dim=1) + found.bias.abs()
    return Completeness(value, magnitude, (value - explained).abs() / magnitude)


NodeValues = dict[tuple[NodeKind, int], Tensor]
"""A number for every node: a factor on what it writes, or its attribution. There is a tensor for
each kind and layer; :attr:`~transcoders.circuits.notation.Node.place` says where a node stands."""


def node_shapes(local: LocalReplacementModel) -> dict[tuple[NodeKind, int], tuple[int, ...]]:
    """The shapes of :data:`NodeValues` on a prompt. MLPs and errors have (token)."""
    replacement, n_tokens = local.replacement, local.n_tokens
    shapes: dict[tuple[NodeKind, int], tuple[int, ...]] = {(NodeKind.EMBED, -1): (n_tokens,)}
    for layer in range(replacement.n_layers):
        shapes[NodeKind.HEAD, layer] = (replacement.n_heads, n_tokens, n_tokens)
        shapes[NodeKind.MLP, layer] = shapes[NodeKind.ERROR, layer] = (n_tokens,)
    for layer, transcoder in replacement.transcoders.items():
        shapes[NodeKind.FEATURE, layer] = (n_tokens, transcoder.n_features)
    return shapes


def unit_scales(local: LocalReplacementModel) -> NodeValues:
    """Factors of 1 for all nodes, ready for autograd."""
    return {
        place: local.passed.after.new_ones(shape).requires_grad_()
        for place, shape in node_shapes(local).items()
    }


def frozen_value(
    local: LocalReplacementModel, target: Target, scales: NodeValues
) -> Float[Tensor, ""]:
    """The target in the frozen model with these factors.

    It can be differentiated. It is dense, and so for checks only. Biases are not scaled.
    """
    replacement, passed = local.replacement, local.passed
    read_depth, token = int(target.vectors.depth), int(target.vectors.token)
    stream = scales[NodeKind.EMBED, -1][:, None] * passed.before_attention[0]
    for layer in range(replacement.n_layers):
        before = stream
        read = stream / passed.attention_scale[layer, :, None]
        values = torch.einsum("sd,hde->hse", read, replacement.W_V[layer])
        strength = scales[NodeKind.HEAD, layer] * passed.attention[layer]
        mixed = torch.einsum("hts,hse->hte", strength, values)
        written = torch.einsum("hte,hed->td", mixed, replacement.W_O[layer])
        written += replacement.attention_bias[layer] / passed.attention_out_scale[layer, :, None]
        stream = stream + written
        mlp_stream = before if replacement.is_parallel else stream
        if read_depth == int(replacement.mlp_reads[layer]):
            return target.vectors.vector[0] @ mlp_stream[token] + target.vectors.bias[0]
        out = scales[NodeKind.MLP, layer][:, None] * local.mlp_out[layer] + local.bias[layer]
        if (transcoder := replacement.transcoders.get(layer)) is not None:
            normalised = replacement.centre(mlp_stream) / passed.mlp_scale[layer, :, None]
            active = transcoder.encode(passed.mlp.mlp_in[layer]) > 0
            active[: replacement.first_position] = False
            z = (normalised @ transcoder.W_enc + transcoder.b_enc) * active
            out = out + (scales[NodeKind.FEATURE, layer] * z) @ transcoder.W_dec
        stream = stream + out + scales[NodeKind.ERROR, layer][:, None] * local.error[layer]
    return target.vectors.vector[0] @ stream[token] + target.vectors.bias[0]


def total_attributions(local: LocalReplacementModel, target: Target) -> NodeValues:
    """Input times gradient of every node on the frozen model: its attribution over all paths."""
    scales = unit_scales(local)
    with torch.enable_grad():
        value = frozen_value(local, target, scales)
    found = torch.autograd.grad(
        value, list(scales.values()), allow_unused=True, materialize_grads=True
    )
    return dict(zip(scales, found, strict=True))
