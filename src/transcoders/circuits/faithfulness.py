"""How much of a target a set of parts of the real model carries.

:func:`faithfulness` replaces every part outside a circuit by its mean, or every part inside, and
asks how much of the target is left (Marks et al. 2024, arXiv 2403.19647, section 3). With c the
target with a set of parts kept, M all and ∅ none: faithfulness is (c(circuit) - c(∅)) / (c(M) -
c(∅)). The same of M without the circuit is ``remaining`` here; they call it completeness, which
here says that attributions add up.

The parts are: a feature at a token, a head at a token (with all its sources), an MLP without a
transcoder at a token. Transcoders' errors outside a circuit are replaced by their mean. Tokens
before the first that transcoders were trained on, and the embeddings, are left alone.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from transcoders.circuits.ablation import BATCH, target_values
from transcoders.circuits.notation import Node, NodeKind
from transcoders.circuits.replacement import LocalReplacementModel, ReplacementModel
from transcoders.circuits.vectors import Target
from transcoders.circuits.verify import NodeValues
from transcoders.models import (
    captured,
    interventions,
    mlp_input,
    mlp_interventions,
    mlp_output,
    run_blocks,
)

REPLACEABLE = (NodeKind.FEATURE, NodeKind.HEAD, NodeKind.MLP)


class Means(NamedTuple):
    """What each part does on average over a text, leaving out positions without transcoders."""

    heads: Float[Tensor, "layer head d_head"]
    """What heads give to their output map."""
    features: dict[int, Float[Tensor, " n_features"]]
    mlp_out: Float[Tensor, "layer d_model"]


class KeptParts(NamedTuple):
    """The parts that keep what they do; the others do what they do on average."""

    heads: Bool[Tensor, "layer token head"]
    features: dict[int, Bool[Tensor, "token n_features"]]
    mlps: Bool[Tensor, "layer token"]
    """MLPs without a transcoder; for the others, their errors."""


@torch.no_grad()
def mean_activations(circuit: ReplacementModel, rows: Int[Tensor, "row token"]) -> Means:
    """Average over all rows and all positions from ``first_position`` on."""
    first = circuit.first_position
    sums: dict[tuple[str, int], Tensor] = {}
    count = 0

    def add(name: str, layer: int, values: Tensor) -> None:
        total = values.double().sum(dim=0)
        sums[name, layer] = sums.get((name, layer), torch.zeros_like(total)) + total

    model, layers = circuit.model, range(circuit.n_layers)
    for batch in rows.split(BATCH):
        names = [head_outputs(layer) for layer in layers]
        names += [name for at in layers for name in (mlp_input(model, at), mlp_output(at))]
        with captured(model, names, batch.shape) as found:
            run_blocks(model, tokens=batch)
        for layer in layers:
            add("heads", layer, found[head_outputs(layer)][:, first:].flatten(0, 1))
            add("mlp_out", layer, found[mlp_output(layer)][:, first:].flatten(0, 1))
            if layer in circuit.transcoders:
                read = found[mlp_input(model, layer)][:, first:]
                z = circuit.transcoders[layer].encode(read)
                add("features", layer, z.flatten(0, 1))
        count += batch[:, first:].numel()

    def mean(name: str, layer: int) -> Tensor:
        return (sums[name, layer] / count).float()

    return Means(
        heads=torch.stack([mean("heads", layer) for layer in layers]),
        features={layer: mean("features", layer) for layer in circuit.transcoders},
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
        ranked: nodes, the most important first; those that are no feature, head or MLP are skipped.
        means: what replaces a part.
        sizes: numbers of nodes; those above the number there is are left out.

    Returns:
        Columns ``n_nodes``, ``faithfulness``, ``remaining``; the shares are NaN if no part makes
        any difference to the target.
    """
    parts = replaceable_parts(ranked)
    everything, nothing = _kept(local, [], inside=False), _kept(local, [], inside=True)
    empty = _value_with(local, target, nothing, means)
    whole = _value_with(local, target, everything, means)
    span = (whole - empty) or float("nan")
    rows = []
    for size in [size for size in sizes if size <= len(parts)]:
        inside = _value_with(local, target, _kept(local, parts[:size], inside=True), means)
        outside = _value_with(local, target, _kept(local, parts[:size], inside=False), means)
        rows.append(
            {
                "n_nodes": size,
                "faithfulness": (inside - empty) / span,
                "remaining": (outside - empty) / span,
            }
        )
    return pd.DataFrame(rows, columns=["n_nodes", "faithfulness", "remaining"])


def replaceable_parts(nodes: Sequence[Node]) -> list[Node]:
    """The parts among nodes that :func:`faithfulness` replaces; a head with all its sources."""
    parts = [node for node in nodes if node.kind in REPLACEABLE]
    return list(dict.fromkeys(node._replace(source=-1) for node in parts))


def parts_by_attribution(local: LocalReplacementModel, totals: NodeValues) -> list[Node]:
    """Every part of the model with an attribution over all paths, from the largest size on."""
    heads = totals.heads.sum(dim=3)
    sizes: dict[Node, float] = {}
    for layer, of_layer in zip(local.circuit.transcoders, totals.features, strict=True):
        for token, unit in of_layer.nonzero().tolist():
            sizes[Node(NodeKind.FEATURE, layer, unit, token)] = of_layer[token, unit].abs().item()
    for layer, head, token in heads.nonzero().tolist():
        sizes[Node(NodeKind.HEAD, layer, head, token)] = heads[layer, head, token].abs().item()
    for layer, token in totals.mlps.nonzero().tolist():
        sizes[Node(NodeKind.MLP, layer, -1, token)] = totals.mlps[layer, token].abs().item()
    return sorted(sizes, key=lambda node: (-sizes[node], node))


@torch.no_grad()
def _value_with(
    local: LocalReplacementModel, target: Target, kept: KeptParts, means: Means
) -> float:
    """The target with all parts but ``kept`` replaced by their means."""
    circuit, first = local.circuit, local.circuit.first_position

    def mix(layer: int) -> Callable[[Tensor], Tensor]:
        keep = kept.heads[layer, None, :, :, None]
        return lambda z: torch.where(keep, z, means.heads[layer])

    def replace(layer: int) -> Callable[[Tensor, Tensor], Tensor]:
        mean, keep = means.mlp_out[layer], kept.mlps[layer, None, :, None]

        def change(mlp_in: Tensor, mlp_out: Tensor) -> Tensor:
            if layer not in circuit.transcoders:
                return torch.where(keep, mlp_out, mean)
            transcoder = circuit.transcoders[layer]
            z, mean_z = transcoder.encode(mlp_in), means.features[layer]
            error = torch.where(
                keep, mlp_out - transcoder.decode(z), mean - transcoder.decode(mean_z)
            )
            replaced = transcoder.decode(torch.where(kept.features[layer], z, mean_z)) + error
            replaced[:, :first] = mlp_out[:, :first]
            return replaced

        return change

    tokens, layers = local.passed.tokens[None], range(circuit.n_layers)
    with (
        interventions(circuit.model, {head_outputs(at): mix(at) for at in layers}, tokens.shape),
        mlp_interventions(circuit.model, {at: replace(at) for at in layers}, tokens.shape),
    ):
        return target_values(circuit, target, tokens)[0].item()


def head_outputs(layer: int) -> str:
    """The hook of what a layer's heads give to their output map: (batch, token, head, d_head)."""
    return f"blocks.{layer}.attn.hook_z"


def _kept(local: LocalReplacementModel, nodes: Sequence[Node], *, inside: bool) -> KeptParts:
    """``nodes`` kept and nothing else (``inside``), or everything else and not they."""
    circuit, n_tokens, device = local.circuit, local.n_tokens, local.error.device
    shape = (circuit.n_layers, n_tokens)

    def all_(*sizes: int) -> Tensor:
        return torch.full(sizes, not inside, device=device)

    kept = KeptParts(
        all_(*shape, circuit.n_heads),
        {layer: all_(n_tokens, t.n_features) for layer, t in circuit.transcoders.items()},
        all_(*shape),
    )
    for node in nodes:
        match node.kind:
            case "feature":
                kept.features[node.layer][node.token, node.unit] = inside
            case "head":
                kept.heads[node.layer, node.token, node.unit] = inside
            case "mlp":
                kept.mlps[node.layer, node.token] = inside
    kept.heads[:, : circuit.first_position] = True
    kept.mlps[:, : circuit.first_position] = True
    return kept
