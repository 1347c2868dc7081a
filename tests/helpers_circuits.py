"""Models with random transcoders, and attribution on them written out in plain loops.

The loops run the plain Hugging Face model, with its own weights. Where norms subtract the mean,
what it writes counts without its mean, which nothing reads.
"""

from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from transcoders.circuits.notation import Node
from transcoders.circuits.replacement import ReplacementModel
from transcoders.circuits.report import look_up, write_circuit, write_circuit_page
from transcoders.circuits.vectors import feature_target, logit_target

N_TOKENS = 8
PROMPT = "w1 w2 w3 w4"
TARGETS = {
    "logit": "logit[w5]@-1", "difference": "logit[w5]-logit[w9]@-1", "feature": "tc2[top]@-1",
}  # fmt: skip
"""Of this prompt: one of each kind."""

MIXES = {
    "layers 0 and 2": {0: "transcoder", 2: "transcoder"},
    "all layers": {2: "transcoder", 0: "transcoder", 1: "topk_transcoder"},
    "layer 1": {1: "transcoder"},
    "no layer": {},
}


def make_circuit(model, make, mix, *, first, n_features=64):
    """Random transcoders, another at each layer; a TopK transcoder keeps an eighth."""
    transcoders = {}
    for layer, kind in mix.items():
        transcoders[layer] = make(kind, n_features=n_features, seed=10 + layer)
        if kind == "topk_transcoder":
            transcoders[layer].k = max(n_features // 8, 2)
    return ReplacementModel(model, transcoders, first_position=first)


def some_targets(local):
    """The most and the least active feature of each layer, and sums of logits, at some tokens."""
    first, last = local.replacement.first_position, local.n_tokens - 1
    targets = [
        logit_target(local, {7: 1.0}, -1, name="one"),
        logit_target(local, {7: 1.0, 9: -1.0}, 2, name="difference"),
        logit_target(local, {7: 0.5, 9: -2.0, 200: 3.0}, 0, name="sum"),
    ]
    for layer in local.replacement.transcoders:
        for token in (first, first + 2, last):
            units = active_units(local, layer, token)
            targets += [feature_target(local, layer, unit, token) for unit in {units[0], units[-1]}]
    return targets


def active_units(local, layer, token):
    """The active features of a layer at a token, the most active first."""
    z = local.replacement.transcoders[layer].encode(local.passed.mlp.mlp_in[layer, token])
    return [int(unit) for unit in z.argsort(descending=True) if z[unit] > 0]


class PlainBlock(NamedTuple):
    """The modules of a block, and what its heads read and write."""

    norm_1: nn.Module
    norm_2: nn.Module
    attention_out: nn.Module
    mlp: nn.Module
    W_V: Tensor
    """(head, d_model, d_head): of normalised input."""
    W_O: Tensor
    """(head, d_head, d_model)."""


class PlainModel(NamedTuple):
    """A plain Hugging Face model, never handed over to another library."""

    hf: Any
    blocks: list[PlainBlock]
    final_norm: nn.Module


def plain(model):
    """The model as it lies in its folder."""
    return _plain(model.cfg.model_name)


@cache
def _plain(folder):
    hf = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    hf.requires_grad_(False).eval()
    n_heads, base = hf.config.num_attention_heads, hf.base_model

    def by_head(rows):
        """(head · d_head, d_model) to (head, d_head, d_model)."""
        return rows.unflatten(0, (n_heads, -1))

    blocks = []
    if hf.config.model_type == "gpt2":
        for block in base.h:
            norms, out = (block.ln_1, block.ln_2), block.attn.c_proj
            W_V = by_head(block.attn.c_attn.weight.T[-hf.config.n_embd :]).mT
            blocks.append(PlainBlock(*norms, out, block.mlp, W_V, by_head(out.weight)))
        return PlainModel(hf, blocks, base.ln_f)
    is_neox = hf.config.model_type == "gpt_neox"
    for block in base.layers:
        norms = (block.input_layernorm, block.post_attention_layernorm)
        if is_neox:
            out, rows = block.attention.dense, block.attention.query_key_value.weight
            W_V = by_head(rows).unflatten(1, (3, -1))[:, 2].mT
        else:
            out, rows = block.self_attn.o_proj, block.self_attn.v_proj.weight
            shared = rows.unflatten(0, (hf.config.num_key_value_heads, -1)).mT
            W_V = shared.repeat_interleave(n_heads // len(shared), dim=0)
        blocks.append(PlainBlock(*norms, out, block.mlp, W_V, by_head(out.weight.T)))
    return PlainModel(hf, blocks, base.final_layer_norm if is_neox else base.norm)


class PlainPass(NamedTuple):
    """What a plain model does on one prompt. Residual streams are as the model has them."""

    before_attention: list[Tensor]
    before_mlp: list[Tensor]
    patterns: list[Tensor]
    """By layer: (head, token, source)."""
    mlp_out: list[Tensor]
    logits: Tensor


def plain_pass(model, tokens):
    """Run the plain model on one prompt, with hooks on its own modules."""
    return _plain_pass(model.cfg.model_name, tuple(tokens.tolist()))


@cache
@torch.no_grad()
def _plain_pass(folder, tokens):
    hf, blocks, _ = _plain(folder)
    with watched([module for b in blocks for module in (b.norm_1, b.norm_2, b.mlp)]) as seen:
        output = hf(torch.tensor([tokens]), output_attentions=True, use_cache=False)
    return PlainPass(
        before_attention=[seen[block.norm_1][0][0] for block in blocks],
        before_mlp=[seen[block.norm_2][0][0] for block in blocks],
        patterns=[pattern[0] for pattern in output.attentions],
        mlp_out=[seen[block.mlp][1][0] for block in blocks],
        logits=output.logits[0],
    )


@contextmanager
def watched(modules):
    """Keep what goes into and comes out of some modules within the block."""
    seen = {}

    def keep(module, arguments, output):
        seen[module] = (arguments[0], output)

    with ExitStack() as hooks:
        for module in modules:
            hooks.enter_context(module.register_forward_hook(keep))
        yield seen


@contextmanager
def replaced_mlps(model, stand_ins, first):
    """Let the plain model go on with other outputs of some MLPs from a position on.

    A stand-in is given what dictionaries read there: the MLP's input and output. What the norms
    before all MLPs do is kept.
    """
    blocks = plain(model).blocks

    def hook(norm, stand_in):
        def change(_, __, output):
            mlp_in, changed = without_weight(norm, seen[norm][0]), output.clone()
            changed[:, first:] = stand_in(mlp_in[:, first:], centred(norm, output)[:, first:])
            return changed

        return change

    with ExitStack() as hooks, watched([block.norm_2 for block in blocks]) as seen:
        for layer, stand_in in stand_ins.items():
            block = blocks[layer]
            hooks.enter_context(block.mlp.register_forward_hook(hook(block.norm_2, stand_in)))
        yield seen


class Reader(NamedTuple):
    """Who reads the residual stream, with which vector."""

    vector: Tensor
    kind: str
    layer: int
    token: int
    bias: float


def target_reader(target):
    """The reader that a search starts from."""
    vector, bias = target.vectors.vector[0], target.vectors.bias.item()
    return Reader(vector, target.node.kind, target.node.layer, target.node.token, bias)


def reader_of(local, node, vector):
    """What a feature or head reads to write what ``vector`` reads (paper, section 4.1)."""
    model = local.replacement.model
    block, passed = plain(model).blocks[node.layer], _pass_of(local)
    if node.kind == "feature":
        weights = local.replacement.transcoders[node.layer]
        coefficient = vector @ weights.W_dec[node.unit]
        scale = divisor(block.norm_2, passed.before_mlp[node.layer][node.token])
        encoder = centred(block.norm_2, weights.W_enc[:, node.unit])
        bias = (coefficient * weights.b_enc[node.unit]).item()
        return Reader(coefficient * encoder / scale, "feature", node.layer, node.token, bias)
    strength = passed.patterns[node.layer][node.unit, node.token, node.source]
    scale = divisor(block.norm_1, passed.before_attention[node.layer][node.source])
    read = block.norm_1.weight * (block.W_V[node.unit] @ (block.W_O[node.unit] @ vector))
    read = centred(block.norm_1, read)
    return Reader(strength * read / scale, "head", node.layer, node.source, 0.0)


def sees(local, reader, node):
    """Whether a node writes where and before a reader reads."""
    if node.token != reader.token:
        return False
    if node.kind == "embed" or reader.kind == "target" or node.layer < reader.layer:
        return True
    # Within a layer, an MLP reads what the heads wrote, except in a parallel block.
    is_parallel = getattr(plain(local.replacement.model).hf.config, "use_parallel_residual", False)
    in_layer = node.kind == "head" and reader.kind == "feature" and not is_parallel
    return in_layer and node.layer == reader.layer


def outputs(local):
    """What every part writes, from the model's own modules; parts that write nothing left out."""
    replacement, passed = local.replacement, _pass_of(local)
    written = {}
    for layer, block in enumerate(plain(replacement.model).blocks):
        read = without_weight(block.norm_1, passed.before_attention[layer]) * block.norm_1.weight
        for head in range(replacement.n_heads):
            values = centred(block.norm_1, read @ block.W_V[head] @ block.W_O[head])
            for token in range(local.n_tokens):
                for source in range(token + 1):
                    node = Node("head", layer, head, token, source)
                    written[node] = passed.patterns[layer][head, token, source] * values[source]
        mlp_in = without_weight(block.norm_2, passed.before_mlp[layer])
        mlp_out = centred(block.norm_2, passed.mlp_out[layer])
        for token in range(local.n_tokens):
            transcoder = replacement.transcoders.get(layer)
            if transcoder is None or token < replacement.first_position:
                written[Node("mlp", layer, -1, token)] = mlp_out[token]
                continue
            z = transcoder.encode(mlp_in[token])
            written[Node("error", layer, -1, token)] = mlp_out[token] - transcoder.decode(z)
            for unit in active_units(local, layer, token):
                written[Node("feature", layer, unit, token)] = z[unit] * transcoder.W_dec[unit]
    embedding = centred(plain(replacement.model).blocks[0].norm_1, passed.before_attention[0])
    for token in range(local.n_tokens):
        written[Node("embed", -1, -1, token)] = embedding[token]
    return written


def _pass_of(local):
    return plain_pass(local.replacement.model, local.passed.tokens)


class Found(NamedTuple):
    """A path of the reference search."""

    nodes: tuple[Node, ...]
    attribution: float


def all_paths(local, target):
    """Every path there is, by the nodes of the path that it goes on from."""
    written, found = outputs(local), {}
    todo = [((target.node,), target_reader(target))]
    while todo:
        nodes, reader = todo.pop()
        found[nodes] = [
            Found((*nodes, node), (reader.vector @ output).item())
            for node, output in written.items()
            if sees(local, reader, node)
        ]
        for path in found[nodes]:
            if (node := path.nodes[-1]).kind in ("feature", "head"):
                todo.append((path.nodes, reader_of(local, node, reader.vector)))
    return found


def greedy_paths(every, target, search, score, allowed=lambda node: node.kind != "error"):
    """Algorithm 1: in each round the best extensions with a positive score, among all paths.

    No path goes on after a head of layer 0.
    """
    found = ends = [Found((target.node,), target.value)]
    for _ in range(search.iterations):
        extended = [
            path
            for end in ends
            if end.nodes[-1][:2] != ("head", 0)
            for path in every.get(end.nodes, [])
            if allowed(path.nodes[-1]) and score(path.attribution) > 0
        ]
        ends = sorted(extended, key=lambda path: -score(path.attribution))[: search.n_paths]
        found = [*found, *ends]
    return found


def write_files(tracer, circuit, rows, folder):
    """All files of a circuit, whose features are looked up on some rows."""
    text = look_up(tracer, [circuit], rows)
    write_circuit(tracer, circuit, text, folder, name=folder.name, model="tiny-gpt2", seed=1)
    write_circuit_page(folder, {}, {}, folder.parent / "article.html")


def number_of(values, node):
    """The number of a node."""
    return values[node.kind, node.layer][node.place].item()


def centred(norm, vectors):
    """Without the mean, where the norm is a LayerNorm."""
    is_layer_norm = isinstance(norm, nn.LayerNorm)
    return vectors - vectors.mean(dim=-1, keepdim=True) if is_layer_norm else vectors


def divisor(norm, residual):
    """What a norm divides by, found from what it gives back."""
    normalised = norm.forward(residual)  # without hooks
    if (bias := getattr(norm, "bias", None)) is not None:
        normalised = normalised - bias
    expected = centred(norm, residual) * norm.weight
    return (expected * expected).sum(dim=-1) / (expected * normalised).sum(dim=-1)


def without_weight(norm, residual):
    """What a norm gives without its weight and bias: what a dictionary reads."""
    return centred(norm, residual) / divisor(norm, residual)[..., None]


def assert_close(found, expected, tolerance=1e-5):
    """Compare relative to the largest entry, the scale on which rounding errors of sums live."""
    assert found.shape == expected.shape
    scale = expected.abs().max().clamp_min(1e-30)
    assert ((found - expected).abs().max() / scale).item() <= tolerance


def prompt(random_tokens, length=N_TOKENS, seed=3):
    """One row of random tokens after BOS."""
    return random_tokens(1, length, seed=seed)[0].long()
