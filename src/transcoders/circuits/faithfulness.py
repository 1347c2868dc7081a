"""How much of a target a set of parts of the real model carries.

:func:`faithfulness` replaces every part outside a circuit by its mean, or every part inside, and
asks how much of the target is left (the faithfulness and completeness of Marks et al. 2024,
arXiv 2403.19647, section 3). With c the target with a set of parts kept, M all and ∅ none:
faithfulness is (c(circuit) - c(∅)) / (c(M) - c(∅)), completeness the same of M without it.

The parts are: a feature at a token, a head at a token (with all its sources), an MLP without a
transcoder at a token. Transcoders' errors outside a circuit are replaced by their mean. Tokens
before the first that transcoders were trained on, and the embeddings, are left alone.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from transcoders.circuits.ablation import BATCH, target_values
from transcoders.circuits.model import CircuitModel, Run
from transcoders.circuits.notation import Node
from transcoders.circuits.vectors import Target
from transcoders.circuits.verify import Gates
from transcoders.models.language_model import removed_after

REPLACEABLE = ("feature", "head", "mlp")


class Means(NamedTuple):
    """What each part does on average over a text, leaving out positions without transcoders."""

    heads: Float[Tensor, "layer head d_head"]
    """What heads give to their output map."""
    features: dict[int, Float[Tensor, " n_features"]]
    mlp_out: Float[Tensor, "layer d_model"]


class Kept(NamedTuple):
    """The parts that keep what they do; the others do what they do on average."""

    heads: Bool[Tensor, "layer token head"]
    features: dict[int, Bool[Tensor, "token n_features"]]
    mlps: Bool[Tensor, "layer token"]
    """MLPs without a transcoder; for the others, their errors."""


@torch.no_grad()
def mean_activations(circuit: CircuitModel, rows: Int[Tensor, "row token"]) -> Means:
    """Average over all rows and all positions from ``first_position`` on."""
    first, n_layers = circuit.first_position, circuit.n_layers
    sums: dict[tuple[str, int], Tensor] = {}
    count = 0

    def add(name: str, layer: int, values: Tensor) -> None:
        total = values.double().sum(dim=0)
        sums[name, layer] = sums.get((name, layer), torch.zeros_like(total)) + total

    def on_attention(layer: int, x: Tensor) -> None:
        add("heads", layer, x[:, first:].flatten(0, 1))

    def on_mlp(layer: int, mlp_in: Tensor, mlp_out: Tensor) -> None:
        add("mlp_out", layer, mlp_out[:, first:].flatten(0, 1))
        if layer in circuit.transcoders:
            z = circuit.transcoders[layer].encode(mlp_in[:, first:])
            add("features", layer, z.flatten(0, 1))

    with _hooks(circuit, on_attention, on_mlp):
        for batch in rows.split(BATCH):
            circuit.model.hf.base_model(input_ids=batch, use_cache=False)
            count += batch[:, first:].numel()

    def mean(name: str, layer: int) -> Tensor:
        return (sums[name, layer] / count).float()

    return Means(
        heads=torch.stack([mean("heads", i) for i in range(n_layers)]).unflatten(
            1, (circuit.n_heads, -1)
        ),
        features={layer: mean("features", layer) for layer in circuit.transcoders},
        mlp_out=torch.stack([mean("mlp_out", layer) for layer in range(n_layers)]),
    )


def faithfulness(
    run: Run, target: Target, ranked: Sequence[Node], means: Means, sizes: Sequence[int]
) -> pd.DataFrame:
    """How much of the target a growing circuit keeps, and how much is left without it.

    Args:
        run: of the prompt.
        target: what is explained.
        ranked: nodes, the most important first; those that are no feature, head or MLP are skipped.
        means: what replaces a part.
        sizes: numbers of nodes; those above the number there is are left out.

    Returns:
        Columns ``n_nodes``, ``faithfulness``, ``completeness``; the shares are NaN if no part makes
        any difference to the target.
    """
    parts = replaceable_parts(ranked)
    everything, nothing = _kept(run, [], inside=False), _kept(run, [], inside=True)
    empty = _value_with(run, target, nothing, means)
    whole = _value_with(run, target, everything, means)
    span = (whole - empty) or float("nan")
    rows = []
    for size in [size for size in sizes if size <= len(parts)]:
        inside = _value_with(run, target, _kept(run, parts[:size], inside=True), means)
        outside = _value_with(run, target, _kept(run, parts[:size], inside=False), means)
        rows.append(
            {
                "n_nodes": size,
                "faithfulness": (inside - empty) / span,
                "completeness": (outside - empty) / span,
            }
        )
    return pd.DataFrame(rows, columns=["n_nodes", "faithfulness", "completeness"])


def replaceable_parts(nodes: Sequence[Node]) -> list[Node]:
    """The parts among nodes that :func:`faithfulness` replaces; a head with all its sources."""
    parts = [node for node in nodes if node.kind in REPLACEABLE]
    return list(dict.fromkeys(node._replace(source=-1) for node in parts))


def parts_by_attribution(run: Run, totals: Gates) -> list[Node]:
    """Every part of the model with an attribution over all paths, from the largest size on."""
    heads = totals.heads.sum(dim=3)
    sizes: dict[Node, float] = {}
    for layer, of_layer in zip(run.circuit.transcoders, totals.features, strict=True):
        for token, unit in of_layer.nonzero().tolist():
            sizes[Node("feature", layer, unit, token)] = of_layer[token, unit].abs().item()
    for layer, head, token in heads.nonzero().tolist():
        sizes[Node("head", layer, head, token)] = heads[layer, head, token].abs().item()
    for layer, token in totals.mlps.nonzero().tolist():
        sizes[Node("mlp", layer, -1, token)] = totals.mlps[layer, token].abs().item()
    return sorted(sizes, key=lambda node: (-sizes[node], node))


@torch.no_grad()
def _value_with(run: Run, target: Target, kept: Kept, means: Means) -> float:
    """The target with all parts but ``kept`` replaced by their means."""
    circuit, first = run.circuit, run.circuit.first_position

    def on_attention(layer: int, x: Tensor) -> Tensor:
        heads = x.unflatten(2, (circuit.n_heads, -1))
        keep = kept.heads[layer, None, :, :, None]
        return torch.where(keep, heads, means.heads[layer]).flatten(2)

    def on_mlp(layer: int, mlp_in: Tensor, mlp_out: Tensor) -> Tensor:
        mean = means.mlp_out[layer]
        keep = kept.mlps[layer, None, :, None]
        if layer not in circuit.transcoders:
            return torch.where(keep, mlp_out, mean)
        transcoder = circuit.transcoders[layer]
        z, mean_z = transcoder.encode(mlp_in), means.features[layer]
        rest = torch.where(keep, mlp_out - transcoder.decode(z), mean - transcoder.decode(mean_z))
        replaced = transcoder.decode(torch.where(kept.features[layer], z, mean_z)) + rest
        replaced[:, :first] = mlp_out[:, :first]
        return replaced

    with _hooks(circuit, on_attention, on_mlp):
        return target_values(circuit, target, run.passed.tokens[None])[0].item()


def _kept(run: Run, nodes: Sequence[Node], *, inside: bool) -> Kept:
    """``nodes`` kept and nothing else (``inside``), or everything else and not they."""
    circuit, n_tokens, device = run.circuit, run.n_tokens, run.error.device
    shape = (circuit.n_layers, n_tokens)

    def all_(*sizes: int) -> Tensor:
        return torch.full(sizes, not inside, device=device)

    kept = Kept(
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


@contextmanager
def _hooks(
    circuit: CircuitModel,
    on_attention: Callable[[int, Tensor], Tensor | None],
    on_mlp: Callable[[int, Tensor, Tensor], Tensor | None],
) -> Iterator[None]:
    """Watch, or replace by what is returned, what enters output maps and what leaves MLPs."""
    model, hooks = circuit.model, []
    for layer, block in enumerate(model.blocks):

        def before(_: nn.Module, x: tuple[Tensor, ...], layer: int = layer) -> Any:
            replaced = on_attention(layer, x[0])
            return None if replaced is None else (replaced,)

        def after(_: nn.Module, x: tuple[Tensor, ...], out: Tensor, layer: int = layer) -> Any:
            return on_mlp(layer, x[0], out)

        output = block.get_submodule(model.architecture.attention_output)
        hooks.append(output.register_forward_pre_hook(before))
        hooks.append(block.mlp.register_forward_hook(after))
    with removed_after(hooks):
        yield
