"""Circuits against the real model, in which attention, scales and active features are free.

:func:`ablation_effects` removes the output of one node at a time. How far does the target fall, and
does its attribution predict that?

:func:`faithfulness` keeps a whole set of parts and replaces all others by their means, or the other
way round (Marks et al. 2024, arXiv 2403.19647, section 3). Let c(S) be the target with only the
parts of S kept, M all parts and C the circuit. The faithfulness of C is
(c(C) - c(∅)) / (c(M) - c(∅)). The same ratio for M without C is called ``remaining`` here. (Marks
et al. call it completeness. Here, completeness means that attributions add up.)

Its parts are: a feature at a token, a head at a token (with all its sources), an MLP without a
transcoder at a token. The errors of transcoders are replaced by their means unless everything else
is kept. Tokens before the first that transcoders were trained on stay as they are, and so do
embeddings.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial

import pandas as pd
import torch
from jaxtyping import Float, Int
from scipy import stats
from torch import Tensor

from transcoders.circuits.notation import Node, NodeKind
from transcoders.circuits.replacement import LocalReplacementModel, ReplacementModel
from transcoders.circuits.vectors import Target
from transcoders.circuits.verify import NodeValues, node_shapes
from transcoders.models import (
    captured,
    interventions,
    mlp_activations,
    mlp_input,
    mlp_interventions,
    mlp_output,
    run_blocks,
)

BATCH = 16
"""Prompts run together, unless they are long."""
BATCH_TOKENS = 2048
"""Tokens run together, at most: attention that is watched holds a pattern for each pair of them."""
REPLACEABLE = (NodeKind.FEATURE, NodeKind.HEAD, NodeKind.MLP)
"""Kinds of nodes that can be ablated."""
Means = dict[tuple[NodeKind, int], Float[Tensor, "..."]]
"""What the parts of each kind and layer do on average over a text: what heads give to their output
map (head, d_head), activations of features (n_features) and outputs of MLPs (d_model)."""


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


@torch.no_grad()
def ablation_effects(
    local: LocalReplacementModel, target: Target, totals: NodeValues, nodes: Sequence[Node]
) -> pd.DataFrame:
    """What the target loses without each node's output, beside the node's attribution.

    Args:
        local: of the prompt.
        target: what is explained.
        totals: its attributions over all paths.
        nodes: features, heads and MLPs.

    Returns:
        Columns ``node``, ``kind``, ``attribution`` (over all paths) and ``effect``.
    """
    whole = target_values(local.replacement, target, local.passed.tokens[None])[0]
    effects: list[float] = []
    size = min(BATCH, max(BATCH_TOKENS // len(local.passed.tokens), 1))
    for start in range(0, len(nodes), size):
        batch = nodes[start : start + size]  # a row of the model's batch for each node
        tokens = local.passed.tokens.expand(len(batch), -1)
        removed: dict[str, Tensor] = {}
        for row, node in enumerate(batch):
            hook, output = _written(local, node)
            removed.setdefault(hook, output.new_zeros(*tokens.shape, len(output)))
            removed[hook][row, node.token] = output
        changes = {hook: partial(torch.add, other=-output) for hook, output in removed.items()}
        with interventions(local.replacement.model, changes, tokens.shape):
            effects += (whole - target_values(local.replacement, target, tokens)).tolist()
    return pd.DataFrame(
        {
            "node": [str(node) for node in nodes],
            "kind": [node.kind for node in nodes],
            "attribution": [totals[node.kind, node.layer][node.place].item() for node in nodes],
            "effect": effects,
        }
    )


def rank_correlation(effects: pd.DataFrame) -> float:
    """Spearman's correlation of attribution with effect; NaN for fewer than three nodes."""
    if len(effects) < 3:
        return float("nan")
    return float(stats.spearmanr(effects["attribution"], effects["effect"]).statistic)


def _written(local: LocalReplacementModel, node: Node) -> tuple[str, Float[Tensor, " d_model"]]:
    """What a node adds to the residual stream at its token, and the hook that this passes."""
    replacement, passed, layer = local.replacement, local.passed, node.layer
    if node.kind == NodeKind.HEAD:
        strength = passed.attention[layer, node.unit, node.token, node.source]
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


@torch.no_grad()
def mean_activations(replacement: ReplacementModel, rows: Int[Tensor, "row token"]) -> Means:
    """Average over all rows and all positions from ``first_position`` on."""
    model, first = replacement.model, replacement.first_position
    layers = range(replacement.n_layers)
    hooks = [head_outputs(layer) for layer in layers]
    hooks += [hook for layer in layers for hook in (mlp_input(model, layer), mlp_output(layer))]
    sums: Means = defaultdict(lambda: torch.zeros(()))
    for batch in rows.split(BATCH):
        with captured(model, hooks, batch.shape) as found:
            run_blocks(model, tokens=batch)
        for layer in layers:
            heads, mlp_out = found[head_outputs(layer)], found[mlp_output(layer)]
            parts = {NodeKind.HEAD: heads, NodeKind.MLP: mlp_out}
            if (transcoder := replacement.transcoders.get(layer)) is not None:
                parts[NodeKind.FEATURE] = transcoder.encode(found[mlp_input(model, layer)])
            for kind, values in parts.items():
                total = values[:, first:].flatten(0, 1).double().sum(dim=0)
                sums[kind, layer] = sums[kind, layer] + total
    n_positions = rows[:, first:].numel()
    return {place: (total / n_positions).float() for place, total in sums.items()}


def faithfulness(
    local: LocalReplacementModel,
    target: Target,
    ranked: Sequence[Node],
    means: Means,
    sizes: Sequence[int],
) -> pd.DataFrame:
    """How much of the target a growing circuit keeps, and how much is left without it.

    Args:
        local: of the prompt.
        target: what is explained.
        ranked: nodes, the most important first. Only features, heads and MLPs count.
        means: what replaces a part.
        sizes: numbers of parts; those above the number there is are left out.

    Returns:
        Columns ``n_nodes``, ``faithfulness``, ``remaining``. The shares are NaN if no part makes
        any difference to the target.
    """
    parts = replaceable_parts(ranked)

    def value(n_parts: int, *, inside: bool) -> float:
        return _value_with(local, target, parts[:n_parts], means, inside=inside)

    empty, whole = value(0, inside=True), value(0, inside=False)
    span = (whole - empty) or float("nan")
    rows = [
        (n, (value(n, inside=True) - empty) / span, (value(n, inside=False) - empty) / span)
        for n in sizes
        if n <= len(parts)
    ]
    return pd.DataFrame(rows, columns=["n_nodes", "faithfulness", "remaining"])


def replaceable_parts(nodes: Sequence[Node]) -> list[Node]:
    """The parts among nodes that :func:`faithfulness` replaces. A head counts with all sources."""
    parts = [node for node in nodes if node.kind in REPLACEABLE]
    return list(dict.fromkeys(node._replace(source=-1) for node in parts))


def parts_by_attribution(totals: NodeValues) -> list[Node]:
    """Every part of the model with an attribution over all paths, by its size."""
    sizes: dict[Node, float] = {}
    for (kind, layer), attributions in totals.items():
        values = attributions.sum(dim=2) if kind == NodeKind.HEAD else attributions
        for place in values.nonzero().tolist() if kind in REPLACEABLE else []:
            match kind:
                case "feature":
                    token, unit = place
                case "head":
                    unit, token = place
                case _:
                    unit, [token] = -1, place
            sizes[Node(kind, layer, unit, token)] = values[tuple(place)].abs().item()
    return sorted(sizes, key=lambda node: (-sizes[node], node))


@torch.no_grad()
def _value_with(
    local: LocalReplacementModel,
    target: Target,
    parts: Sequence[Node],
    means: Means,
    *,
    inside: bool,
) -> float:
    """The target when all but these parts (``inside``), or only these, do what they do on average.

    What is kept of an MLP with a transcoder is the transcoder's error.
    """
    replacement, first = local.replacement, local.replacement.first_position
    device, layers = local.error.device, range(replacement.n_layers)
    keep = {
        place: torch.full(shape, not inside, device=device)
        for place, shape in node_shapes(local).items()
    }
    for part in parts:
        keep[part.kind, part.layer][part.place] = inside
    for layer in layers:
        keep[NodeKind.HEAD, layer][:, :first] = keep[NodeKind.MLP, layer][:first] = True

    def heads(layer: int) -> Callable[[Tensor], Tensor]:
        # (token, head, 1): a part is a head with all its sources, and counts as its last source.
        kept, mean = (
            keep[NodeKind.HEAD, layer][:, :, -1:].transpose(0, 1),
            means[NodeKind.HEAD, layer],
        )
        return lambda z: torch.where(kept, z, mean)

    def mlp(layer: int) -> Callable[[Tensor, Tensor], Tensor]:
        kept, mean = keep[NodeKind.MLP, layer][:, None], means[NodeKind.MLP, layer]

        def change(mlp_in: Tensor, mlp_out: Tensor) -> Tensor:
            if (transcoder := replacement.transcoders.get(layer)) is None:
                return torch.where(kept, mlp_out, mean)
            z, mean_z = transcoder.encode(mlp_in), means[NodeKind.FEATURE, layer]
            errors = mlp_out - transcoder.decode(z), mean - transcoder.decode(mean_z)
            features = torch.where(keep[NodeKind.FEATURE, layer], z, mean_z)
            replaced = transcoder.decode(features) + torch.where(kept, *errors)
            replaced[:, :first] = mlp_out[:, :first]
            return replaced

        return change

    tokens = local.passed.tokens[None]
    with (
        interventions(replacement.model, {head_outputs(i): heads(i) for i in layers}, tokens.shape),
        mlp_interventions(replacement.model, {i: mlp(i) for i in layers}, tokens.shape),
    ):
        return target_values(replacement, target, tokens)[0].item()
