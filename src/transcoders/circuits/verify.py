"""Proof that attributions are right, from algebra alone.

- :func:`completeness`: the contributions of all parts to a vector add up to its value.
- :class:`TotalAttributions`: in the local replacement model, every node has a factor on what it
  writes. The target's derivative with respect to a factor, with all factors at 1, is input times
  gradient: the node's attribution over all paths.

:mod:`transcoders.circuits.ablation` measures what attribution is worth where nothing is frozen.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from transcoders.circuits.notation import NodeKind
from transcoders.circuits.replacement import LocalReplacementModel
from transcoders.circuits.vectors import FeatureVectors, Target, contributions
from transcoders.models import keeps_patterns


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
    # (depth, vector, d_model). In a parallel block, the MLP reads what the attention reads.
    streams = [passed.before_attention[:, vectors.token], passed.before_mlp[:, vectors.token]]
    points = torch.cat([torch.stack(streams, 1).flatten(0, 1), passed.after[None, vectors.token]])
    stream = points[vectors.depth, torch.arange(len(vectors.depth), device=points.device)]
    value = (vectors.vector * stream).sum(dim=1) + vectors.bias
    explained = found.values.sum(dim=1) + found.bias
    magnitude = found.values.abs().sum(dim=1) + found.bias.abs()
    return Completeness(value, magnitude, (value - explained).abs() / magnitude)


NodeValues = Mapping[tuple[NodeKind, int], Tensor]
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


def unit_scales(local: LocalReplacementModel, layer: int) -> dict[tuple[NodeKind, int], Tensor]:
    """Factors of 1 for the nodes of a layer, ready for autograd."""
    return {
        place: local.passed.after.new_ones(shape).requires_grad_()
        for place, shape in node_shapes(local).items()
        if place[1] == layer
    }


def _read(target: Target, stream: Float[Tensor, "token d_model"]) -> Float[Tensor, ""]:
    """What the target reads in the residual stream."""
    return target.vectors.vector[0] @ stream[int(target.vectors.token)] + target.vectors.bias[0]


def _through_layer(
    local: LocalReplacementModel,
    target: Target,
    layer: int,
    stream: Float[Tensor, "token d_model"],
    scales: NodeValues,
) -> Float[Tensor, "token d_model"]:
    """The residual stream after a layer of the frozen model, or where a feature of it reads."""
    replacement, passed = local.replacement, local.passed
    before = stream
    read = stream / passed.attention_scale[layer, :, None]
    values = torch.einsum("sd,hde->hse", read, replacement.W_V[layer])
    strength = scales[NodeKind.HEAD, layer] * passed.attention(layer)
    mixed = torch.einsum("hts,hse->hte", strength, values)
    written = torch.einsum("hte,hed->td", mixed, replacement.W_O[layer])
    written += replacement.attention_bias[layer] / passed.attention_out_scale[layer, :, None]
    stream = stream + written
    mlp_stream = before if replacement.is_parallel else stream
    if target.node.layer == layer:
        return mlp_stream
    out = scales[NodeKind.MLP, layer][:, None] * local.mlp_out[layer] + local.bias[layer]
    if (transcoder := replacement.transcoders.get(layer)) is not None:
        normalised = replacement.centre(mlp_stream) / passed.mlp_scale[layer, :, None]
        active = transcoder.encode(passed.mlp.mlp_in[layer]) > 0
        active[: replacement.first_position] = False
        z = (normalised @ transcoder.W_enc + transcoder.b_enc) * active
        out = out + (scales[NodeKind.FEATURE, layer] * z) @ transcoder.W_dec
    return stream + out + scales[NodeKind.ERROR, layer][:, None] * local.error[layer]


class TotalAttributions(NodeValues):
    """Input times gradient of every node on the frozen model: its attribution over all paths.

    Gradients go back through one layer at a time, so that the tensors of all layers are never held
    together. On a long prompt, the attributions of features and of heads (a number for each pair of
    tokens) are not kept, but made anew each time they are asked for.
    """

    def __init__(self, local: LocalReplacementModel, target: Target) -> None:
        """Run the frozen model forwards, and back from the target."""
        self._local, self._target, self._shapes = local, target, node_shapes(local)
        self._last = min(target.node.layer, local.replacement.n_layers - 1)
        """The layer of a feature; for logits the last one."""
        self._entering = [local.passed.before_attention[0]]
        """The stream before each layer."""
        for layer in range(self._last):
            ones, stream = unit_scales(local, layer), self._entering[layer]
            with torch.no_grad():
                self._entering.append(_through_layer(local, target, layer, stream, ones))
        self._gradients: dict[int, Tensor] = {}
        """The target's gradient with respect to the stream after each layer but the target's."""
        self._kept: dict[tuple[NodeKind, int], Tensor] = {}
        keeps = keeps_patterns(local.replacement.model, local.n_tokens)
        large = (NodeKind.HEAD, NodeKind.FEATURE)
        for layer in reversed(range(self._last + 1)):
            self._gradients[layer - 1], found = self._of_layer(layer)
            self._kept |= {at: found[at] for at in found if keeps or at[0] not in large}
        embed = self._gradients[-1] * self._entering[0]
        self._kept[NodeKind.EMBED, -1] = embed.sum(dim=1)

    def _of_layer(self, layer: int) -> tuple[Tensor, dict[tuple[NodeKind, int], Tensor]]:
        """The gradient with respect to the stream before a layer, and its nodes' attributions."""
        scales, gradient = unit_scales(self._local, layer), self._gradients.get(layer)
        with torch.enable_grad():
            before = self._entering[layer].detach().requires_grad_()
            after = _through_layer(self._local, self._target, layer, before, scales)
            value = _read(self._target, after) if gradient is None else after
        found = torch.autograd.grad(
            value, [before, *scales.values()], gradient, allow_unused=True, materialize_grads=True
        )
        return found[0], dict(zip(scales, found[1:], strict=True))

    def __getitem__(self, place: tuple[NodeKind, int]) -> Tensor:
        """The attributions of a kind and layer."""
        if place in self._kept:
            return self._kept[place]
        if place[1] > self._last:
            return self._entering[0].new_zeros(self._shapes[place])
        return self._of_layer(place[1])[1][place]

    def __iter__(self) -> Iterator[tuple[NodeKind, int]]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)
