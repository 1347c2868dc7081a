"""Models with random transcoders, and attribution on them written out in plain loops."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from torch import Tensor, nn

from transcoders.circuits.model import CircuitModel, Run
from transcoders.circuits.notation import Node
from transcoders.circuits.vectors import Target, feature_target, logit_target
from transcoders.config import Kind
from transcoders.dictionaries import SparseDictionary
from transcoders.models import LanguageModel
from transcoders.models.attention import attention_weights

Make = Callable[..., SparseDictionary]
N_TOKENS = 8

MIXES: dict[str, dict[int, Kind]] = {
    "layers 0 and 2": {0: "transcoder", 2: "transcoder"},
    "all layers": {2: "transcoder", 0: "transcoder", 1: "topk_transcoder"},
    "layer 1": {1: "transcoder"},
    "no layer": {},
}


def make_circuit(
    model: LanguageModel, make: Make, mix: dict[int, Kind], *, first: int, n_features: int = 64
) -> CircuitModel:
    """Random transcoders, another at each layer; a TopK transcoder keeps an eighth."""
    transcoders = {}
    for layer, kind in mix.items():
        transcoders[layer] = make(kind, n_features=n_features, seed=10 + layer)
        if kind == "topk_transcoder":
            transcoders[layer].k = max(n_features // 8, 2)
    return CircuitModel(model, transcoders, first_position=first)


def some_targets(run: Run) -> list[Target]:
    """The most and the least active feature of each layer, and sums of logits, at some tokens."""
    first, last = run.circuit.first_position, run.n_tokens - 1
    targets = [
        logit_target(run, {7: 1.0}, -1, name="one"),
        logit_target(run, {7: 1.0, 9: -1.0}, 2, name="difference"),
        logit_target(run, {7: 0.5, 9: -2.0, 200: 3.0}, 0, name="sum"),
    ]
    for layer in run.circuit.transcoders:
        for token in (first, first + 2, last):
            units = active_units(run, layer, token)
            targets += [feature_target(run, layer, unit, token) for unit in {units[0], units[-1]}]
    return targets


def active_units(run: Run, layer: int, token: int) -> list[int]:
    """The active features of a layer at a token, the most active first."""
    z = run.circuit.transcoders[layer].encode(run.passed.mlp.mlp_in[layer, token])
    return [int(unit) for unit in z.argsort(descending=True) if z[unit] > 0]


class Reader(NamedTuple):
    """Who reads the residual stream, with which vector."""

    vector: Tensor
    kind: str
    layer: int
    token: int
    bias: float


def target_reader(target: Target) -> Reader:
    """The reader that a search starts from."""
    vector, bias = target.vectors.vector[0], target.vectors.bias.item()
    return Reader(vector, target.node.kind, target.node.layer, target.node.token, bias)


def reader_of(run: Run, node: Node, vector: Tensor) -> Reader:
    """What a feature or head reads to write what ``vector`` reads (paper, section 4.1)."""
    circuit, model = run.circuit, run.circuit.model
    if node.kind == "feature":
        weights = circuit.transcoders[node.layer]
        coefficient = vector @ weights.W_dec[node.unit]
        block = model.blocks[node.layer]
        norm = block.get_submodule(model.architecture.norm_before_mlp)
        scale = divisor(norm, run.passed.before_mlp[node.layer, node.token])
        encoder = centred(norm, weights.W_enc[:, node.unit])
        bias = (coefficient * weights.b_enc[node.unit]).item()
        return Reader(coefficient * encoder / scale, "feature", node.layer, node.token, bias)
    norm = model.blocks[node.layer].get_submodule(model.architecture.norm_before_attention)
    attention = attention_weights(model, node.layer)
    strength = run.passed.patterns[node.layer, node.unit, node.token, node.source]
    scale = divisor(norm, run.passed.before_attention[node.layer, node.source])
    read = attention.W_V[node.unit] @ (attention.W_O[node.unit] @ vector)
    return Reader(strength * centred(norm, read) / scale, "head", node.layer, node.source, 0.0)


def sees(run: Run, reader: Reader, node: Node) -> bool:
    """Whether a node writes where and before a reader reads."""
    if node.token != reader.token:
        return False
    if node.kind == "embed" or reader.kind == "target" or node.layer < reader.layer:
        return True
    # Within a layer, an MLP reads what the heads wrote, but for a parallel block.
    in_layer = node.kind == "head" and reader.kind == "feature" and not run.circuit.is_parallel
    return in_layer and node.layer == reader.layer


def outputs(run: Run) -> dict[Node, Tensor]:
    """What every part writes, from the model's own modules; parts that write nothing left out."""
    circuit, model, passed = run.circuit, run.circuit.model, run.passed
    written: dict[Node, Tensor] = {}
    for layer, block in enumerate(model.blocks):
        norm = block.get_submodule(model.architecture.norm_before_attention)
        attention = attention_weights(model, layer)
        residual = passed.before_attention[layer]
        read = centred(norm, residual) / divisor(norm, residual)[:, None]
        for head in range(circuit.n_heads):
            values = read @ attention.W_V[head] @ attention.W_O[head]
            for token in range(run.n_tokens):
                for source in range(token + 1):
                    node = Node("head", layer, head, token, source)
                    written[node] = passed.patterns[layer, head, token, source] * values[source]
        mlp_out = model.mlp(layer)(passed.mlp.mlp_in[layer])
        for token in range(run.n_tokens):
            transcoder = circuit.transcoders.get(layer)
            if transcoder is None or token < circuit.first_position:
                written[Node("mlp", layer, -1, token)] = mlp_out[token]
                continue
            z = transcoder.encode(passed.mlp.mlp_in[layer, token])
            written[Node("error", layer, -1, token)] = mlp_out[token] - transcoder.decode(z)
            for unit in active_units(run, layer, token):
                written[Node("feature", layer, unit, token)] = (
                    z[unit] * transcoder.W_dec[unit]
                )
    for token in range(run.n_tokens):
        written[Node("embed", -1, -1, token)] = passed.before_attention[0, token]
    return written


class Found(NamedTuple):
    """A path of the reference search."""

    nodes: tuple[Node, ...]
    attribution: float


def greedy_paths(
    run: Run,
    target: Target,
    *,
    n: int,
    iterations: int,
    score: Callable[[float], float] = lambda attribution: attribution,
    allowed: Callable[[Node], bool] = lambda node: node.kind != "error",
) -> list[Found]:
    """Algorithm 1: in each round the ``n`` best extensions with a positive score."""
    written = outputs(run)
    found = [Found((target.node,), target.value)]
    ends = [(found[0], target_reader(target))]
    for _ in range(iterations):
        candidates = []
        for path, reader in ends:
            for node, output in written.items():
                if sees(run, reader, node) and allowed(node):
                    attribution = (reader.vector @ output).item()
                    candidates.append((Found((*path.nodes, node), attribution), reader))
        candidates = [each for each in candidates if score(each[0].attribution) > 0]
        candidates.sort(key=lambda each: -score(each[0].attribution))
        found += [path for path, _ in candidates[:n]]
        ends = [
            (path, reader_of(run, path.nodes[-1], reader.vector))
            for path, reader in candidates[:n]
            if path.nodes[-1].kind in ("feature", "head")
        ]
    return found


def all_paths(run: Run, target: Target) -> Iterator[Found]:
    """Every path there is, the target's own left out."""
    written = outputs(run)
    todo = [((target.node,), target_reader(target))]
    while todo:
        nodes, reader = todo.pop()
        for node, output in written.items():
            if sees(run, reader, node):
                yield Found((*nodes, node), (reader.vector @ output).item())
                if node.kind in ("feature", "head"):
                    todo.append(((*nodes, node), reader_of(run, node, reader.vector)))


def centred(norm: nn.Module, vectors: Tensor) -> Tensor:
    """Without the mean, where the norm is a LayerNorm."""
    is_layer_norm = isinstance(norm, nn.LayerNorm)
    return vectors - vectors.mean(dim=-1, keepdim=True) if is_layer_norm else vectors


def divisor(norm: nn.Module, residual: Tensor) -> Tensor:
    """What a norm divides by, found from what it gives back."""
    normalised = norm(residual)
    if (bias := getattr(norm, "bias", None)) is not None:
        normalised = normalised - bias
    expected = centred(norm, residual) * norm.weight
    return (expected * expected).sum(dim=-1) / (expected * normalised).sum(dim=-1)


def assert_close(found: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    """Compare relative to the largest entry, the scale on which rounding errors of sums live."""
    assert found.shape == expected.shape
    scale = expected.abs().max().clamp_min(1e-30)
    assert ((found - expected).abs().max() / scale).item() <= tolerance


def hooks_of_ours(model: LanguageModel) -> list[str]:
    """Hooks that this project left on any module; transformers keeps a few of its own."""
    return [
        hook.__qualname__
        for module in model.hf.modules()
        for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
        if not hook.__module__.startswith("transformers.")
    ]


def prompt(random_tokens: Callable[..., Tensor], length: int = N_TOKENS, seed: int = 3) -> Tensor:
    """One row of random tokens after BOS."""
    return random_tokens(1, length, seed=seed)[0].long()
