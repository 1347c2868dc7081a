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
from typing import NamedTuple

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from scipy import stats
from torch import Tensor

from transcoders.circuits.notation import Node, NodeKind
from transcoders.circuits.replacement import LocalReplacementModel, ReplacementModel
from transcoders.circuits.vectors import Target
from transcoders.circuits.verify import NodeValues
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
"""Prompts run together."""
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
    for start in range(0, len(nodes), BATCH):
        batch = nodes[start : start + BATCH]  # a row of the model's batch for each node
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
            "attribution": [totals.of(node).item() for node in nodes],
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


class Means(NamedTuple):
    """What each part does on average over a text, without positions that have no transcoders."""

    heads: Float[Tensor, "layer head d_head"]
    """What heads give to their output map."""
    features: dict[int, Float[Tensor, " n_features"]]
    mlp_out: Float[Tensor, "layer d_model"]


class KeptParts(NamedTuple):
    """Which parts stay as they are. All others do what they do on average."""

    heads: Bool[Tensor, "layer token head"]
    features: dict[int, Bool[Tensor, "token n_features"]]
    mlps: Bool[Tensor, "layer token"]
    """MLPs without a transcoder, and the errors of transcoders."""


def head_outputs(layer: int) -> str:
    """The hook of what a layer's heads give to their output map: (batch, token, head, d_head)."""
    return f"blocks.{layer}.attn.hook_z"


@torch.no_grad()
def mean_activations(replacement: ReplacementModel, rows: Int[Tensor, "row token"]) -> Means:
    """Average over all rows and all positions from ``first_position`` on."""
    model, first, layers = (
        replacement.model,
        replacement.first_position,
        range(replacement.n_layers),
    )
    hooks = [head_outputs(layer) for layer in layers]
    hooks += [hook for layer in layers for hook in (mlp_input(model, layer), mlp_output(layer))]
    sums: dict[tuple[str, int], list[Tensor]] = defaultdict(list)
    for batch in rows.split(BATCH):
        with captured(model, hooks, batch.shape) as found:
            run_blocks(model, tokens=batch)
        for layer in layers:
            parts = {"heads": found[head_outputs(layer)], "mlp_out": found[mlp_output(layer)]}
            if (transcoder := replacement.transcoders.get(layer)) is not None:
                parts["features"] = transcoder.encode(found[mlp_input(model, layer)])
            for name, values in parts.items():
                sums[name, layer].append(values[:, first:].flatten(0, 1).double().sum(dim=0))

    def mean(name: str, layer: int) -> Tensor:
        return (sum(sums[name, layer], torch.zeros(())) / rows[:, first:].numel()).float()

    return Means(
        heads=torch.stack([mean("heads", layer) for layer in layers]),
        features={layer: mean("features", layer) for layer in replacement.transcoders},
        mlp_out=torch.stack([mean("mlp_out", layer) for layer in layers]),
    )


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
        return _value_with(local, target, _kept(local, parts[:n_parts], inside=inside), means)

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

    def add(attributions: Tensor, node: Callable[..., Node]) -> None:
        for place in attributions.nonzero().tolist():
            sizes[node(*place)] = attributions[tuple(place)].abs().item()

    for layer, of_layer in totals.features.items():
        add(of_layer, lambda token, unit, at=layer: Node(NodeKind.FEATURE, at, unit, token))
    add(totals.heads.sum(dim=3), partial(Node, NodeKind.HEAD))
    add(totals.mlps, lambda layer, token: Node(NodeKind.MLP, layer, -1, token))
    return sorted(sizes, key=lambda node: (-sizes[node], node))


@torch.no_grad()
def _value_with(
    local: LocalReplacementModel, target: Target, kept: KeptParts, means: Means
) -> float:
    """The target when all parts but ``kept`` are replaced by their means."""
    replacement = local.replacement

    def heads(layer: int) -> Callable[[Tensor], Tensor]:
        keep = kept.heads[layer, None, :, :, None]
        return lambda z: torch.where(keep, z, means.heads[layer])

    def mlp(layer: int) -> Callable[[Tensor, Tensor], Tensor]:
        mean, keep = means.mlp_out[layer], kept.mlps[layer, None, :, None]
        first = replacement.first_position

        def change(mlp_in: Tensor, mlp_out: Tensor) -> Tensor:
            if (transcoder := replacement.transcoders.get(layer)) is None:
                return torch.where(keep, mlp_out, mean)
            z, mean_z = transcoder.encode(mlp_in), means.features[layer]
            errors = mlp_out - transcoder.decode(z), mean - transcoder.decode(mean_z)
            features = torch.where(kept.features[layer], z, mean_z)
            replaced = transcoder.decode(features) + torch.where(keep, *errors)
            replaced[:, :first] = mlp_out[:, :first]
            return replaced

        return change

    tokens, layers = local.passed.tokens[None], range(replacement.n_layers)
    with (
        interventions(replacement.model, {head_outputs(i): heads(i) for i in layers}, tokens.shape),
        mlp_interventions(replacement.model, {i: mlp(i) for i in layers}, tokens.shape),
    ):
        return target_values(replacement, target, tokens)[0].item()


def _kept(local: LocalReplacementModel, nodes: Sequence[Node], *, inside: bool) -> KeptParts:
    """Keep ``nodes`` and nothing else (``inside``), or everything else."""
    replacement, n_tokens = local.replacement, local.n_tokens

    def full(*sizes: int) -> Bool[Tensor, "..."]:
        return torch.full(sizes, not inside, device=local.error.device)

    kept = KeptParts(
        full(replacement.n_layers, n_tokens, replacement.n_heads),
        {layer: full(n_tokens, t.n_features) for layer, t in replacement.transcoders.items()},
        full(replacement.n_layers, n_tokens),
    )
    for node in nodes:
        match node.kind:
            case "feature":
                kept.features[node.layer][node.token, node.unit] = inside
            case "head":
                kept.heads[node.layer, node.token, node.unit] = inside
            case "mlp":
                kept.mlps[node.layer, node.token] = inside
    kept.heads[:, : replacement.first_position] = True
    kept.mlps[:, : replacement.first_position] = True
    return kept
