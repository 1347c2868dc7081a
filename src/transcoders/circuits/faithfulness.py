"""Circuits against the real model: sets of parts kept, and sets of parts replaced by their means.

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

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from transcoders.circuits.ablation import (
    BATCH,
    REPLACEABLE,
    batches,
    head_outputs,
    target_values,
)
from transcoders.circuits.notation import Node, NodeKind
from transcoders.circuits.replacement import LocalReplacementModel, ReplacementModel
from transcoders.circuits.vectors import Target
from transcoders.circuits.verify import NodeValues, node_shapes
from transcoders.models import (
    captured,
    interventions,
    mlp_input,
    mlp_interventions,
    mlp_output,
    run_blocks,
)

Means = dict[tuple[NodeKind, int], Float[Tensor, "..."]]
"""What the parts of each kind and layer do on average over a text: what heads give to their output
map (head, d_head), activations of features (n_features) and outputs of MLPs (d_model)."""


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
        sizes: numbers of parts, the first of them 0; those above the number of parts are left out.

    Returns:
        Columns ``n_nodes``, ``faithfulness``, ``remaining``. The shares are NaN if no part makes
        any difference to the target.
    """
    parts = replaceable_parts(ranked)
    measured = [n for n in sizes if n <= len(parts)]
    only, without = values_of_sets(local, target, [parts[:n] for n in measured], means)
    empty, whole = only[0], without[0]
    span = (whole - empty) or float("nan")
    shares = {"faithfulness": only, "remaining": without}
    return pd.DataFrame(
        {"n_nodes": measured, **{name: (np.array(x) - empty) / span for name, x in shares.items()}}
    )


def replaceable_parts(nodes: Sequence[Node]) -> list[Node]:
    """The parts among nodes that :func:`faithfulness` replaces. A head counts with all sources."""
    parts = [node for node in nodes if node.kind in REPLACEABLE]
    return list(dict.fromkeys(node._replace(source=-1) for node in parts))


def parts_by_attribution(totals: NodeValues, n: int) -> list[Node]:
    """The n parts of the model with the largest attributions over all paths, by size."""
    ranked: list[tuple[float, Node]] = []
    for kind, layer in (place for place in totals if place[0] in REPLACEABLE):
        attributions = totals[kind, layer]
        values = (attributions.sum(dim=2) if kind == NodeKind.HEAD else attributions).abs()
        found = values != 0
        if n < values.numel():  # a long prompt has a million parts
            found &= values >= values.flatten().topk(n).values[-1]
        for size, place in zip(values[found].tolist(), found.nonzero().tolist(), strict=True):
            ranked.append((-size, Node.at(kind, layer, *place)))
        ranked = sorted(ranked)[:n]
    return [node for _, node in ranked]


@torch.no_grad()
def values_of_sets(
    local: LocalReplacementModel, target: Target, sets: Sequence[Sequence[Node]], means: Means
) -> tuple[list[float], list[float]]:
    """The target with each set of parts alone, and without each; other parts are at their means.

    What is kept of an MLP with a transcoder is the transcoder's error.

    Args:
        local: of the prompt.
        target: what is explained.
        sets: parts, as :func:`replaceable_parts` names them.
        means: what replaces a part.
    """
    model = local.replacement.model

    def values(*, inside: bool) -> list[float]:
        found: list[float] = []
        for batch in batches(local, sets):
            tokens = local.passed.tokens.expand(len(batch), -1)
            on_heads, on_mlps = _put_means(local, _kept(local, batch, inside=inside), means)
            with (
                interventions(model, on_heads, tokens.shape),
                mlp_interventions(model, on_mlps, tokens.shape),
            ):
                found += target_values(local.replacement, target, tokens).tolist()
        return found

    return values(inside=True), values(inside=False)


def _kept(
    local: LocalReplacementModel, sets: Sequence[Sequence[Node]], *, inside: bool
) -> dict[tuple[NodeKind, int], Bool[Tensor, "set ..."]]:
    """Which nodes stay as they are, for each set."""
    first = local.replacement.first_position
    keep = {
        # (head, token): a part is a head with all its sources.
        place: torch.full((len(sets), *shape[:2]), not inside, device=local.error.device)
        for place, shape in node_shapes(local).items()
    }
    for row, parts in enumerate(sets):
        for part in parts:
            keep[part.kind, part.layer][row][part.place[:2]] = inside
    for layer in range(local.replacement.n_layers):
        keep[NodeKind.HEAD, layer][:, :, :first] = keep[NodeKind.MLP, layer][:, :first] = True
    return keep


def _put_means(
    local: LocalReplacementModel,
    keep: dict[tuple[NodeKind, int], Bool[Tensor, "set ..."]],
    means: Means,
) -> tuple[dict[str, Callable[[Tensor], Tensor]], dict[int, Callable[[Tensor, Tensor], Tensor]]]:
    """Changes of heads by hook, and of MLPs by layer, that put means where nothing is kept."""
    replacement, first = local.replacement, local.replacement.first_position

    def heads(layer: int) -> Callable[[Tensor], Tensor]:
        kept = keep[NodeKind.HEAD, layer].transpose(1, 2)[..., None]  # (set, token, head, 1)
        return lambda z: torch.where(kept, z, means[NodeKind.HEAD, layer])

    def mlp(layer: int) -> Callable[[Tensor, Tensor], Tensor]:
        kept, mean = keep[NodeKind.MLP, layer][..., None], means[NodeKind.MLP, layer]

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

    layers = range(replacement.n_layers)
    return {head_outputs(i): heads(i) for i in layers}, {i: mlp(i) for i in layers}
