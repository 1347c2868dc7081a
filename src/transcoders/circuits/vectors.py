"""Feature vectors: what they read in the residual stream, who contributes to it, and pull-backs.

A feature vector f reads the residual stream x at one token and depth. Its value is f · x. Every
part of the model that wrote there contributes f · (what it wrote), and these contributions add up
to the value (paper, section 4.1):

- feature i of layer l                z_i (f · f_dec,i)
- head h of layer l, source token s   A[t, s] (P x_s / σ_s) W_V W_O f
- the embedding, an MLP without a transcoder, the error of a transcoder, the biases

To look further back, f is replaced by what the chosen part reads: (f · f_dec,i) P f_enc,i / σ for a
feature, A[t, s] P W_V W_O f / σ_s for a head. This is again a feature vector, in units of the value
of the first one. All functions work on many vectors, features, heads and sources at a time.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from transcoders.circuits.notation import Node, NodeKind, position
from transcoders.circuits.replacement import LocalReplacementModel
from transcoders.errors import UserError
from transcoders.models import logits_after


class FeatureVectors(NamedTuple):
    """Several vectors that each read one token of the residual stream at one depth."""

    vector: Float[Tensor, "vector d_model"]
    depth: Int[Tensor, " vector"]
    token: Int[Tensor, " vector"]
    bias: Float[Tensor, " vector"]
    """What is added to ``vector · residual``: ``b_enc`` of a feature, and the like."""


@dataclass(frozen=True)
class Target:
    """What a circuit explains: a feature's pre-activation or a sum of logits, at one token."""

    name: str
    vectors: FeatureVectors
    """A single one."""
    value: float
    """In the run: pre-activation, or weighted sum of logits."""
    node: Node
    """The feature itself; for logits a node of kind ``target``."""
    logits: dict[int, float] = field(default_factory=dict)
    """Token ids and weights; empty for a feature."""


class Columns(NamedTuple):
    """What the columns of :class:`Contributions` stand for."""

    kind: Int[Tensor, " column"]
    """The :attr:`~transcoders.circuits.notation.NodeKind.code` of its kind."""
    layer: Int[Tensor, " column"]
    unit: Int[Tensor, " column"]
    """Number of the feature or head."""
    source: Int[Tensor, " column"]
    """The token read (head) or written at (feature); -1: the vector's own token."""
    activation: Float[Tensor, " column"]
    """Of features; 0 for the others."""


class Contributions(NamedTuple):
    """What each part of the model contributes to each of several vectors."""

    values: Float[Tensor, "vector column"]
    """0 where a part is not seen by a vector."""
    columns: Columns
    bias: Float[Tensor, " vector"]
    """Of attention, transcoders and the vector itself."""


def feature_target(
    local: LocalReplacementModel, layer: int, unit: int | None, token: int
) -> Target:
    """The pre-activation of a transcoder feature at a token.

    Args:
        local: of the prompt.
        layer: of the transcoder.
        unit: number of the feature. None stands for the one that is most active.
        token: counted from 0, or backwards from -1.

    Raises:
        UserError: there is no such transcoder, feature or token, or the feature is not active
            there. In this case the message lists the most active features.
    """
    replacement, active, place = local.replacement, local.active, position(token, local.n_tokens)
    name = f"target tc{layer}[{'top' if unit is None else unit}]@{token}"
    transcoder = replacement.transcoder_of(layer, unit or 0, name)
    here = (active.token == place) & (active.layer == layer)
    z, order = active.z[here].sort(descending=True, stable=True)
    best = active.unit[here][order].tolist()
    if unit is None and best:
        unit = best[0]
    if unit is None or unit not in best:
        pairs = zip(best[:10], z[:10].tolist(), strict=True)
        listed = ", ".join(f"tc{layer}[{i}]@{place} ({value:.2f})" for i, value in pairs)
        early = place < replacement.first_position
        why = f"; no transcoder was trained on token {place}" if early else ""
        if not (best or early):
            why = "; if it is dead (dead_fraction in evaluation.csv), lower its l1_coefficient"
        raise UserError(f"{name}: expected an active feature; most active: {listed or 'none'}{why}")
    reads = replacement.encoder_vectors(layer, torch.tensor([unit], device=z.device))[0]
    vectors = _single(
        reads / local.passed.mlp_scale[layer, place],
        int(replacement.mlp_reads[layer]),
        place,
        transcoder.b_enc[unit],
    )
    read = local.passed.mlp.mlp_in[layer, place]
    value = (read @ transcoder.W_enc[:, unit] + transcoder.b_enc[unit]).item()
    node = Node(NodeKind.FEATURE, layer, unit, place)
    return Target(str(node), vectors, value, node)


def logit_target(
    local: LocalReplacementModel, weights: dict[int, float], token: int, *, name: str
) -> Target:
    """A weighted sum of the logits after a token.

    Args:
        local: of the prompt.
        weights: by token id; 1 and -1 for a difference.
        token: after which the logits are taken.
        name: shown to people.
    """
    replacement, place = local.replacement, position(token, local.n_tokens)
    device = local.passed.after.device
    ids = torch.tensor(list(weights), device=device)
    weight = torch.tensor(list(weights.values()), device=device)
    rows, biases = replacement.unembedding(ids)
    reads = (weight @ rows) / local.passed.final_scale[place]
    vectors = _single(reads, 2 * replacement.n_layers, place, weight @ biases)
    value = (logits_after(replacement.model, local.passed, place)[ids] @ weight).item()
    node = Node(NodeKind.TARGET, replacement.n_layers, -1, place)
    return Target(name, vectors, value, node, weights)


def _single(
    vector: Float[Tensor, " d_model"], depth: int, token: int, bias: Float[Tensor, ""]
) -> FeatureVectors:
    at_depth, at_token = (torch.tensor([n], device=vector.device) for n in (depth, token))
    return FeatureVectors(vector[None], at_depth, at_token, bias[None])


def contributions(local: LocalReplacementModel, vectors: FeatureVectors) -> Contributions:
    """What every part of the model contributes to each vector (see the module's docstring)."""
    replacement, active = local.replacement, local.active
    vector, token = vectors.vector, vectors.token

    def seen(first_depth: Int[Tensor, " part"]) -> Bool[Tensor, "vector part"]:
        return vectors.depth[:, None] >= first_depth

    here = torch.isin(active.token, token).nonzero()[:, 0]
    layer_of, token_of = active.layer[here], active.token[here]
    features = (vector @ local.decoders(here).T).mul_(active.z[here])
    features.mul_(seen(replacement.mlp_writes[layer_of]) & (token[:, None] == token_of))

    heads = head_contributions(local, vectors).flatten(1)
    mlp_seen = seen(replacement.mlp_writes)

    def of_layers(outputs: Float[Tensor, "layer token d_model"]) -> Float[Tensor, "vector layer"]:
        return torch.einsum("vd,lvd->vl", vector, outputs[:, token]) * mlp_seen

    embed = (vector * local.passed.before_attention[0, token]).sum(dim=1, keepdim=True)
    attention_bias = (vector @ replacement.attention_bias.T) * seen(replacement.attention_writes)
    attention_bias = attention_bias / local.passed.attention_out_scale[:, token].T
    return Contributions(
        values=torch.cat(
            [features, heads, of_layers(local.mlp_out), of_layers(local.error), embed], dim=1
        ),
        columns=_columns(local, here),
        bias=vectors.bias + attention_bias.sum(dim=1) + of_layers(local.bias).sum(dim=1),
    )


def head_contributions(
    local: LocalReplacementModel, vectors: FeatureVectors
) -> Float[Tensor, "vector layer head source"]:
    """What every head contributes to each vector, by the token that it reads."""
    replacement, n_vectors = local.replacement, len(vectors.vector)
    sizes = replacement.n_layers, replacement.n_heads
    # (layer · head, vector, d_head) @ (layer · head, d_head, source)
    written = vectors.vector @ replacement.W_O.flatten(0, 2).T
    written = written.view(n_vectors, sizes[0] * sizes[1], -1).transpose(0, 1)
    read = torch.bmm(written, local.values.flatten(0, 1).transpose(1, 2))
    heads = read.transpose(0, 1).unflatten(1, sizes)
    attention = local.passed.attention_before(replacement.n_layers, vectors.token)
    heads = heads * attention.permute(2, 0, 1, 3)
    seen = vectors.depth[:, None] >= replacement.attention_writes
    return heads.mul_(seen[:, :, None, None]).contiguous()


def pull_back(
    local: LocalReplacementModel,
    vectors: FeatureVectors,
    found: Contributions,
    row: Int[Tensor, " chosen"],
    column: Int[Tensor, " chosen"],
) -> FeatureVectors:
    """What the chosen features and heads read, in units of the vectors that they contribute to.

    Args:
        local: of the prompt.
        vectors: those of ``found``.
        found: their contributions.
        row: which vector each chosen part contributes to.
        column: which part. Only features and heads read; the vectors of others are 0.
    """
    replacement, passed = local.replacement, local.passed
    kind, layer, unit, source, _ = (part[column] for part in found.columns)
    token = torch.where(source < 0, vectors.token[row], source)
    pulled = torch.zeros_like(vectors.vector[row])
    bias, depth = pulled.new_zeros(len(row)), torch.zeros_like(row)
    for here in replacement.transcoders:
        chosen = ((kind == NodeKind.FEATURE.code) & (layer == here)).nonzero()[:, 0]
        if not len(chosen):
            continue
        weights = replacement.transcoders[here]
        of = unit[chosen]
        coefficient = (vectors.vector[row[chosen]] * weights.W_dec[of]).sum(dim=1)
        scale = passed.mlp_scale[here, token[chosen]]
        pulled[chosen] = replacement.encoder_vectors(here, of) * (coefficient / scale)[:, None]
        bias[chosen] = coefficient * weights.b_enc[of]
        depth[chosen] = int(replacement.mlp_reads[here])
    chosen = (kind == NodeKind.HEAD.code).nonzero()[:, 0]
    at, h = layer[chosen], unit[chosen]
    reader = row[chosen]
    strength = passed.strengths(at, h, vectors.token[reader], token[chosen])
    strength = strength / passed.attention_scale[at, token[chosen]]
    inner = torch.einsum("nd,ned->ne", vectors.vector[reader], replacement.W_O[at, h])
    pulled[chosen] = torch.einsum("ne,nde->nd", inner, replacement.W_V[at, h]) * strength[:, None]
    depth[chosen] = replacement.attention_reads[at]
    return FeatureVectors(pulled, depth, token, bias)


def _columns(local: LocalReplacementModel, here: Int[Tensor, " here"]) -> Columns:
    """The columns for the active features ``here`` and everything else."""
    active, replacement = local.active, local.replacement
    sizes = replacement.n_layers, replacement.n_heads, local.n_tokens
    layers, heads, tokens = (torch.arange(size, device=here.device) for size in sizes)
    none = torch.full_like(layers, -1)
    parts: dict[NodeKind, tuple[Tensor, ...]] = {
        NodeKind.FEATURE: (active.layer[here], active.unit[here], active.token[here]),
        NodeKind.HEAD: tuple(torch.cartesian_prod(layers, heads, tokens).T),
        NodeKind.MLP: (layers, none, none),
        NodeKind.ERROR: (layers, none, none),
        NodeKind.EMBED: (none[:1], none[:1], none[:1]),
    }
    layer, unit, source = (torch.cat(column) for column in zip(*parts.values(), strict=True))
    codes = [torch.full_like(columns[0], part.code) for part, columns in parts.items()]
    kind = torch.cat(codes)
    activation = active.z.new_zeros(len(kind))
    activation[: len(here)] = active.z[here]
    return Columns(kind, layer, unit, source, activation)
