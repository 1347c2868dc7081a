"""What a node is worth in the real model, where patterns, scales and active sets move as they will.

:func:`ablation_effects` takes one node's output away and runs the model: by how much does the
target really fall, beside the attribution that says by how much it should?
"""

from collections.abc import Callable, Sequence

import pandas as pd
import torch
from jaxtyping import Float, Int
from scipy import stats
from torch import Tensor

from transcoders.circuits.notation import Node, NodeKind
from transcoders.circuits.replacement import LocalReplacementModel, ReplacementModel
from transcoders.circuits.vectors import Target
from transcoders.circuits.verify import NodeValues, attribution_of
from transcoders.models import interventions, mlp_activations, mlp_output, run_blocks

BATCH = 16
"""Prompts run together, each with another node ablated."""


def ablation_effects(
    local: LocalReplacementModel, target: Target, totals: NodeValues, nodes: Sequence[Node]
) -> pd.DataFrame:
    """What the target loses without each node's output, beside the node's attribution.

    Args:
        local: of the prompt.
        target: what is explained.
        totals: its attributions over all paths.
        nodes: features, heads, MLPs, errors or embeddings.

    Returns:
        Columns ``node``, ``kind``, ``attribution`` (over all paths) and ``effect``.
    """
    whole = target_values(local.circuit, target, local.passed.tokens[None])[0]
    effects: list[float] = []
    for start in range(0, len(nodes), BATCH):
        batch = nodes[start : start + BATCH]
        tokens = local.passed.tokens.expand(len(batch), -1)
        values = _values_without(local, target, tokens, batch)
        effects += (whole - values).tolist()
    return pd.DataFrame(
        {
            "node": [str(node) for node in nodes],
            "kind": [node.kind for node in nodes],
            "attribution": [attribution_of(local, totals, node) for node in nodes],
            "effect": effects,
        }
    )


def rank_correlation(effects: pd.DataFrame) -> float:
    """Spearman's of attribution with effect; NaN for fewer than three nodes."""
    if len(effects) < 3:
        return float("nan")
    return float(stats.spearmanr(effects["attribution"], effects["effect"]).statistic)


def node_output(local: LocalReplacementModel, node: Node) -> Float[Tensor, " d_model"]:
    """What a node writes to the residual stream at its token."""
    circuit, passed = local.circuit, local.passed
    match node.kind:
        case "feature":
            transcoder = circuit.transcoders[node.layer]
            z = transcoder.encode(passed.mlp.mlp_in[node.layer, node.token])[node.unit]
            return z * transcoder.W_dec[node.unit]
        case "head":
            strength = passed.attention[node.layer, node.unit, node.token, node.source]
            value = local.values[node.layer, node.unit, node.source]
            return strength * (value @ circuit.W_O[node.layer, node.unit])
        case "mlp":
            return local.mlp_out[node.layer, node.token]
        case "error":
            return local.error[node.layer, node.token]
        case "embed":
            return passed.before_attention[0, node.token]
    raise ValueError(f"{node} writes nothing of its own")


@torch.no_grad()
def _values_without(
    local: LocalReplacementModel,
    target: Target,
    tokens: Int[Tensor, "node token"],
    nodes: Sequence[Node],
) -> Float[Tensor, " node"]:
    """The target in the real model, in each row without one node's output."""
    removed: dict[str, list[tuple[int, Node]]] = {}
    for row, node in enumerate(nodes):
        removed.setdefault(_written_at(node), []).append((row, node))

    def without(of_hook: list[tuple[int, Node]]) -> Callable[[Tensor], Tensor]:
        def change(written: Tensor) -> Tensor:
            written = written.clone()
            for row, node in of_hook:
                written[row, node.token] -= node_output(local, node)
            return written

        return change

    changes = {name: without(of_hook) for name, of_hook in removed.items()}
    with interventions(local.circuit.model, changes, tokens.shape):
        return target_values(local.circuit, target, tokens)


def _written_at(node: Node) -> str:
    """The hook that a node's output passes on its way into the residual stream."""
    match node.kind:
        case NodeKind.EMBED:
            return "blocks.0.hook_resid_pre"
        case NodeKind.HEAD:
            return f"blocks.{node.layer}.hook_attn_out"
        case _:
            return mlp_output(node.layer)


def target_values(
    circuit: ReplacementModel, target: Target, tokens: Int[Tensor, "row token"]
) -> Float[Tensor, " row"]:
    """The target in the real model, for each row: a feature's activation, or a sum of logits."""
    position, model = target.node.token, circuit.model
    if target.node.kind == NodeKind.FEATURE:
        layer, unit = target.node.layer, target.node.unit
        read = mlp_activations(model, tokens, [layer])[layer].mlp_in[:, position]
        return circuit.transcoders[layer].encode(read)[:, unit]
    normalized = run_blocks(model, tokens=tokens)[:, position]
    weights = normalized.new_tensor(list(target.logits.values()))
    # Before a soft cap, as the target's own value.
    return model.unembed(normalized)[:, list(target.logits)] @ weights
