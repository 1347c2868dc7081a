"""What a node is worth in the real model, where patterns, scales and active sets move as they will.

:func:`ablation_effects` takes one node's output away and runs the model: by how much does the
target really fall, beside the attribution that says by how much it should?
"""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float, Int
from scipy import stats
from torch import Tensor, nn

from transcoders.circuits.model import CircuitModel, Run
from transcoders.circuits.notation import Node
from transcoders.circuits.vectors import Target
from transcoders.circuits.verify import Gates, attribution_of
from transcoders.models.language_model import removed_after

BATCH = 16
"""Prompts run together, each with another node ablated."""


def ablation_effects(
    run: Run, target: Target, totals: Gates, nodes: Sequence[Node]
) -> pd.DataFrame:
    """What the target loses without each node's output, beside the node's attribution.

    Args:
        run: of the prompt.
        target: what is explained.
        totals: its attributions over all paths.
        nodes: features, heads, MLPs, errors or embeddings.

    Returns:
        Columns ``node``, ``kind``, ``attribution`` (over all paths) and ``effect``.
    """
    whole = target_values(run.circuit, target, run.passed.tokens[None])[0]
    effects: list[float] = []
    for start in range(0, len(nodes), BATCH):
        batch = nodes[start : start + BATCH]
        tokens = run.passed.tokens.expand(len(batch), -1)
        values = _values_without(run, target, tokens, batch)
        effects += (whole - values).tolist()
    return pd.DataFrame(
        {
            "node": [str(node) for node in nodes],
            "kind": [node.kind for node in nodes],
            "attribution": [attribution_of(run, totals, node) for node in nodes],
            "effect": effects,
        }
    )


def rank_correlation(effects: pd.DataFrame) -> float:
    """Spearman's of attribution with effect; NaN for fewer than three nodes."""
    if len(effects) < 3:
        return float("nan")
    return float(stats.spearmanr(effects["attribution"], effects["effect"]).statistic)


def node_output(run: Run, node: Node) -> Float[Tensor, " d_model"]:
    """What a node writes to the residual stream at its token."""
    circuit, passed = run.circuit, run.passed
    match node.kind:
        case "feature":
            weights = circuit.transcoders[node.layer]
            read = passed.mlp.mlp_in[node.layer, node.token]
            z = torch.relu(read @ weights.W_enc[:, node.unit] + weights.b_enc[node.unit])
            return z * weights.W_dec[node.unit]
        case "head":
            strength = passed.patterns[node.layer, node.unit, node.token, node.source]
            value = run.values[node.layer, node.unit, node.source]
            return strength * (value @ circuit.W_O[node.layer, node.unit])
        case "mlp":
            return run.opaque[node.layer, node.token]
        case "error":
            return run.error[node.layer, node.token]
        case "embed":
            return passed.before_attention[0, node.token]
    raise ValueError(f"{node} writes nothing of its own")


@torch.no_grad()
def _values_without(
    run: Run, target: Target, tokens: Int[Tensor, "node token"], nodes: Sequence[Node]
) -> Float[Tensor, " node"]:
    """The target in the real model, in each row without one node's output."""
    model = run.circuit.model
    removed: dict[nn.Module, list[tuple[int, Node]]] = {}
    for row, node in enumerate(nodes):
        if node.kind == "embed":
            module = model.hf.get_input_embeddings()
        elif node.kind == "head":
            module = model.blocks[node.layer].get_submodule(model.architecture.attention_output)
        else:
            module = model.mlp(node.layer)
        removed.setdefault(module, []).append((row, node))

    def without(module: nn.Module, _: Any, output: Tensor) -> Tensor:
        output = output.clone()
        for row, node in removed[module]:
            output[row, node.token] -= node_output(run, node)
        return output

    with removed_after([module.register_forward_hook(without) for module in removed]):
        return target_values(run.circuit, target, tokens)


def target_values(
    circuit: CircuitModel, target: Target, tokens: Int[Tensor, "row token"]
) -> Float[Tensor, " row"]:
    """The target in the real model, for each row: a feature's activation, or a sum of logits."""
    position = target.node.token
    if target.node.kind == "feature":
        layer, unit = target.node.layer, target.node.unit
        read = circuit.model.mlp_activations(tokens, [layer])[layer].mlp_in[:, position]
        return circuit.transcoders[layer].encode(read)[:, unit]
    logits = circuit.model.hf(input_ids=tokens, use_cache=False).logits[:, position]
    return logits[:, list(target.logits)] @ logits.new_tensor(list(target.logits.values()))
