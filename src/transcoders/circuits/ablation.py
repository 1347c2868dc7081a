"""Parts of a circuit against the real model, where attention, scales and active features are free.

:func:`changes_when_scaled` scales the output of one node at a time, or removes it
(:mod:`~transcoders.circuits.steering` compares the target's changes with attributions). Whole sets
of parts are ablated in :mod:`~transcoders.circuits.faithfulness`. That module,
:mod:`~transcoders.circuits.controls` and :mod:`transcoders.greater_than` run the real model with
the functions here.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from transcoders.circuits.notation import Node, NodeKind
from transcoders.circuits.replacement import LocalReplacementModel, ReplacementModel
from transcoders.circuits.vectors import Target
from transcoders.models import (
    interventions,
    mlp_activations,
    mlp_output,
    run_blocks,
)

T = TypeVar("T")
BATCH = 16
"""Prompts run together, unless they are long."""
BATCH_TOKENS = 2048
"""The most tokens run together: watched attention holds a pattern for each pair of them."""
REPLACEABLE = (NodeKind.FEATURE, NodeKind.HEAD, NodeKind.MLP)
"""Kinds of nodes that can be ablated."""


def target_values(
    replacement: ReplacementModel, target: Target, tokens: Int[Tensor, "row token"]
) -> Float[Tensor, " row"]:
    """The target in the real model: a feature's activation, or a sum of logits."""
    position, model = target.node.token, replacement.model
    if target.node.kind == NodeKind.FEATURE:
        layer, unit = target.node.layer, target.node.unit
        read = mlp_activations(model, tokens, [layer])[layer].mlp_in[:, position]
        return replacement.transcoders[layer].encode(read)[:, unit]
    normalized = run_blocks(model, tokens=tokens)[:, position]
    weights = normalized.new_tensor(list(target.logits.values()))
    # Without the soft cap that some models put on logits, as in the target's own value.
    return model.unembed(normalized)[:, list(target.logits)] @ weights


def batches(local: LocalReplacementModel, items: Sequence[T]) -> Iterator[Sequence[T]]:
    """Items that the model runs together, each with a copy of the prompt of its own."""
    size = min(BATCH, max(BATCH_TOKENS // local.n_tokens, 1))
    return (items[start : start + size] for start in range(0, len(items), size))


@torch.no_grad()
def changes_when_scaled(
    local: LocalReplacementModel, target: Target, nodes: Sequence[Node], factor: float
) -> list[float]:
    """How far the target moves when one node's output is scaled, for each of several nodes.

    ``(factor - 1)`` times the node's output is added to the residual stream, at its token. So a
    factor of 0 removes the node, and 1 changes nothing.

    Args:
        local: of the prompt.
        target: what is explained.
        nodes: features, heads and MLPs.
        factor: on what the node writes.
    """
    whole = target_values(local.replacement, target, local.passed.tokens[None])[0]
    changes: list[float] = []
    for batch in batches(local, nodes):
        tokens = local.passed.tokens.expand(len(batch), -1)
        added: dict[str, Tensor] = {}
        for row, node in enumerate(batch):
            hook, output = _written(local, node)
            added.setdefault(hook, output.new_zeros(*tokens.shape, len(output)))
            added[hook][row, node.token] = (factor - 1) * output
        hooks = {hook: partial(torch.add, other=output) for hook, output in added.items()}
        with interventions(local.replacement.model, hooks, tokens.shape):
            changes += (target_values(local.replacement, target, tokens) - whole).tolist()
    return changes


def _written(local: LocalReplacementModel, node: Node) -> tuple[str, Float[Tensor, " d_model"]]:
    """What a node adds to the residual stream at its token, and the hook that this passes."""
    replacement, passed, layer = local.replacement, local.passed, node.layer
    if node.kind == NodeKind.HEAD:
        strength = passed.attention(layer, node.token)[node.unit, node.source]
        value = local.values[layer, node.unit, node.source]
        output = strength * (value @ replacement.W_O[layer, node.unit])
        return f"blocks.{layer}.hook_attn_out", output
    if node.kind == NodeKind.FEATURE:
        transcoder = replacement.transcoders[layer]
        z = transcoder.encode(passed.mlp.mlp_in[layer, node.token])[node.unit]
        return mlp_output(layer), z * transcoder.W_dec[node.unit]
    return mlp_output(layer), local.mlp_out[layer, node.token]


def head_outputs(layer: int) -> str:
    """The hook of what a layer's heads give to their output map: (batch, token, head, d_head)."""
    return f"blocks.{layer}.attn.hook_z"
