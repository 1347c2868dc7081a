"""Circuits in the real model, where patterns, scales and active sets move with every change.

- :func:`ablation_effects` takes one node's output away and runs the model: by how much does the
  target really fall, beside the attribution that says by how much it should?
- :func:`faithfulness` replaces every part outside a circuit by its mean, or every part inside, and
  asks how much of the target is left (the faithfulness and completeness of Marks et al. 2024,
  arXiv 2403.19647, section 3). With c the target with a set of parts kept, M all and ∅ none:
  faithfulness is (c(circuit) - c(∅)) / (c(M) - c(∅)), completeness the same of M without it.

The parts are: a feature at a token, a head at a token (with all its sources), an MLP without a
transcoder at a token. Tokens before the first that transcoders were trained on, and the embeddings,
are left alone, and so are transcoders' errors, which :func:`faithfulness` replaces by their mean.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from scipy import stats
from torch import Tensor, nn

from transcoders.circuits.model import CircuitModel, Run
from transcoders.circuits.notation import Node
from transcoders.circuits.vectors import Target
from transcoders.circuits.verify import attribution_of, total_attributions

BATCH = 16
"""Prompts run together, each with another node ablated."""
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


def ablation_effects(run: Run, target: Target, nodes: Sequence[Node]) -> pd.DataFrame:
    """What the target loses without each node's output, beside the node's attribution.

    Args:
        run: of the prompt.
        target: what is explained.
        nodes: features, heads, MLPs, errors or embeddings.

    Returns:
        Columns ``node``, ``kind``, ``attribution`` (over all paths) and ``effect``.
    """
    totals = total_attributions(run, target)
    whole = _values(run.circuit, target, run.passed.tokens[None])[0]
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


def parts_by_attribution(run: Run, target: Target) -> list[Node]:
    """Every part of the model with an attribution, from the largest size on."""
    totals = total_attributions(run, target)
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


def node_output(run: Run, node: Node) -> Float[Tensor, " d_model"]:
    """What a node writes to the residual stream at its token."""
    circuit, passed = run.circuit, run.passed
    match node.kind:
        case "feature":
            weights = circuit.transcoders[node.layer].weights
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

    hooks = [module.register_forward_hook(without) for module in removed]
    try:
        return _values(run.circuit, target, tokens)
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def _value_with(run: Run, target: Target, kept: Kept, means: Means) -> float:
    """The target with all parts but ``kept`` replaced by their means."""
    circuit, first = run.circuit, run.circuit.first_position

    def on_attention(layer: int, x: Tensor) -> Tensor:
        heads = x.unflatten(2, (circuit.n_heads, -1))
        keep = kept.heads[layer, None, :, :, None]
        return torch.where(keep, heads, means.heads[layer]).flatten(2)

    def on_mlp(layer: int, mlp_in: Tensor, mlp_out: Tensor) -> Tensor:
        mean, rest = means.mlp_out[layer], mlp_out
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
        return _values(circuit, target, run.passed.tokens[None])[0].item()


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


def _values(
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
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
