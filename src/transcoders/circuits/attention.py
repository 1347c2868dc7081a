"""Why a head attends to a token: its score, split over pairs of parts (the QK circuit).

A path through a head explains what the head carries (OV), with the attention pattern as it is. This
module explains the pattern. Before the softmax, head h of layer l gives a key token s, seen from a
query token t, the score

    score(t, s) = a · q_t · k_s,    q_t = R_t (g_t (x_t P W_Q / σ_t + b_Q)),    k_s alike

with the residual stream x, the norm's P and σ, a norm of queries and keys g where a model has one
(Qwen3, Gemma 3), rotations R where positions are rotary, and the factor a, mostly 1/√d_head. With σ
and g frozen as the prompt makes them, q and k are linear in x. So the score is a sum over all pairs
of a part of x_t and a part of x_s: the embedding (with the position's, in GPT-2), each active
feature, each head of an earlier layer with all that it reads, MLPs without a transcoder, errors of
transcoders. What is constant is the part ``bias``: b_Q or b_K, and the biases of earlier layers.

**The softmax is not split.** It compares the scores of all keys, so a score says why the head reads
this key *and not another* only in comparison. A pair may raise the scores of all keys alike, which
changes nothing. :attr:`AttentionScore.above_mean` is the score minus the mean over all keys that
the head may read from the query. A soft cap (Gemma 2) comes after the score too.
"""

from collections.abc import Callable
from dataclasses import dataclass

import networkx as nx
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from transcoders.circuits.graph import influence
from transcoders.circuits.notation import Node, NodeKind, position
from transcoders.circuits.replacement import LocalReplacementModel
from transcoders.errors import UserError
from transcoders.models import captured, run_blocks
from transcoders.models.support import differ

REST = "rest"
"""What a table calls the pairs that it does not list."""
COLUMNS = [
    "head", "query", "key", "score", "above_mean", "probability", "query_part", "key_part",
    "contribution",
]  # fmt: skip


class OtherScoresError(UserError):
    """A model computes its attention scores in another way than this module."""


@dataclass(frozen=True)
class AttentionScore:
    """How much a head wants to read one token, seen from another, and why."""

    head: str
    """As ``attn9[1]``."""
    query: int
    key: int
    score: float
    """Before the softmax, and before a soft cap if there is one."""
    above_mean: float
    """The score minus the mean over all keys that the head may read from the query."""
    probability: float
    """The attention pattern: after the softmax."""
    query_parts: list[Node]
    key_parts: list[Node]
    """What the residual stream consists of at the two tokens. A head counts with all sources."""
    pairs: Float[Tensor, "query_part key_part"]
    """Their contributions, which add up to the score."""

    def table(self, n: int = 20) -> pd.DataFrame:
        """The n pairs with the largest contributions, by size, and a last row for all others.

        Returns:
            The columns :data:`COLUMNS`. The contributions add up to the score.
        """
        flat = self.pairs.flatten()
        order = flat.abs().topk(min(n, int(flat.count_nonzero()))).indices
        values = flat[order].tolist()
        places = [divmod(place, len(self.key_parts)) for place in order.tolist()]
        rows = [
            (str(self.query_parts[query]), str(self.key_parts[key]), value)
            for (query, key), value in zip(places, values, strict=True)
        ]
        rows.append((REST, REST, float(flat.double().sum()) - sum(values)))
        same = (self.head, self.query, self.key, self.score, self.above_mean, self.probability)
        return pd.DataFrame([(*same, *row) for row in rows], columns=COLUMNS)


@torch.no_grad()
def attention_score(
    local: LocalReplacementModel, layer: int, head: int, query: int, key: int
) -> AttentionScore:
    """Split the score of one key over pairs of parts (see the module's docstring).

    At most one block of the model runs, for its rotations and its norms of queries and keys.

    Args:
        local: of the prompt.
        layer: of the head.
        head: its number in the layer.
        query: the token that the head writes at, counted from 0, or backwards from -1.
        key: the token that it reads.

    Raises:
        UserError: there is no such head or token, the head cannot read the key from the query, or
            the model computes scores in another way.
    """
    local.replacement.check_head(layer, head)
    query, key = (position(token, local.n_tokens) for token in (query, key))
    pattern = local.passed.patterns[layer][head, query]
    allowed = pattern.nonzero()[:, 0]
    if key not in allowed:
        raise UserError(
            f"key {key}: attn{layer}[{head}] cannot read it from token {query}; expected a token "
            f"from {int(allowed.min())} to {int(allowed.max())}"
        )
    queries, keys = _readers(local, layer, head)
    query_parts, query_vectors = _parts(local, layer, query)
    key_parts, key_vectors = _parts(local, layer, key)
    # The same from the whole residual stream: what the model itself computes.
    stream, everywhere = local.passed.before_attention[layer], slice(None)
    scores = keys(stream, everywhere)[allowed] @ queries(stream, everywhere)[query]
    _check(local, scores, pattern[allowed])
    score = scores[allowed == key]
    return AttentionScore(
        head=f"attn{layer}[{head}]",
        query=query,
        key=key,
        score=score.item(),
        above_mean=(score - scores.mean()).item(),
        probability=pattern[key].item(),
        query_parts=query_parts,
        key_parts=key_parts,
        pairs=queries(query_vectors, query) @ keys(key_vectors, key).T,
    )


def attention_table(
    local: LocalReplacementModel, graph: nx.DiGraph, *, heads: int = 5, pairs: int = 20
) -> pd.DataFrame:
    """``attention.csv``: why the most influential heads of a circuit read what they read.

    Args:
        local: of the prompt.
        graph: its circuit.
        heads: how many, each at one query and key.
        pairs: the largest contributions listed for each.

    Returns:
        The tables of these heads in one. Empty if the model computes its scores in another way than
        :func:`attention_score`, which says so when it is asked.
    """
    found = [node for node in influence(graph) if node.kind == NodeKind.HEAD]
    try:
        tables = [
            attention_score(local, node.layer, node.unit, node.token, node.source).table(pairs)
            for node in found[:heads]
        ]
    except OtherScoresError:
        tables = []
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=COLUMNS)


def _parts(
    local: LocalReplacementModel, layer: int, token: int
) -> tuple[list[Node], Float[Tensor, "part d_model"]]:
    """What the stream that a layer's attention reads consists of at a token, biases first."""
    replacement, passed, active = local.replacement, local.passed, local.active
    here = ((active.token == token) & (active.layer < layer)).nonzero()[:, 0]
    attention = passed.attention_before(layer, token)
    mixed = torch.einsum("lhs,lhse->lhe", attention, local.values[:layer])
    heads = torch.einsum("lhe,lhed->lhd", mixed, replacement.W_O[:layer]).flatten(0, 1)
    scale = passed.attention_out_scale[:layer, token, None]
    biases = replacement.attention_bias[:layer] / scale + local.bias[:layer, token]
    vectors = [
        biases.sum(dim=0, keepdim=True),
        passed.before_attention[:1, token],
        active.z[here, None] * local.decoders(here),
        heads,
        local.mlp_out[:layer, token] + local.error[:layer, token],  # one of the two is 0
    ]
    layers, n_heads = range(layer), replacement.n_heads
    units = zip(active.layer[here].tolist(), active.unit[here].tolist(), strict=True)
    nodes = [Node(NodeKind.BIAS, -1, -1, token), Node(NodeKind.EMBED, -1, -1, token)]
    nodes += [Node(NodeKind.FEATURE, at, unit, token) for at, unit in units]
    nodes += [Node(NodeKind.HEAD, at, head, token) for at in layers for head in range(n_heads)]
    for at in layers:
        has_features = at in replacement.transcoders and token >= replacement.first_position
        nodes.append(Node(NodeKind.ERROR if has_features else NodeKind.MLP, at, -1, token))
    return nodes, torch.cat(vectors)


Reader = Callable[[Tensor, int | slice], Tensor]
"""Makes queries or keys from the residual stream at all tokens, or from its parts at one token. The
first part takes the bias."""


def _readers(local: LocalReplacementModel, layer: int, head: int) -> tuple[Reader, Reader]:
    """What makes the queries and the keys of a head."""
    model, stream = local.replacement.model, local.passed.before_attention[layer]
    prefix = f"blocks.{layer}.attn."
    wanted = ("hook_cos", "hook_sin", "q_norm.hook_scale", "k_norm.hook_scale")
    names = [prefix + name for name in wanted if prefix + name in model.hook_dict]
    found: dict[str, Tensor] = {}
    if names:
        with captured(model, names, (1, local.n_tokens)) as found:
            run_blocks(model, residual=stream[None], start=layer, stop=layer + 1)
    hooks = {name.removeprefix(prefix): values[0] for name, values in found.items()}
    factor = model.blocks[layer].attn.original_component.scaling
    queries = _reader(local, layer, head, "q", factor, hooks)
    return queries, _reader(local, layer, head, "k", 1.0, hooks)


def _reader(
    local: LocalReplacementModel,
    layer: int,
    head: int,
    side: str,
    factor: float,
    hooks: dict[str, Tensor],
) -> Reader:
    """What makes the queries (``q``) or the keys (``k``), times a factor.

    ``hooks`` holds the rotation, which turns the first dimensions (none where positions are
    learned), and the scale of a norm of queries or keys, if there is one.
    """
    replacement, scale = local.replacement, local.passed.attention_scale[layer]
    attention = replacement.model.blocks[layer].attn
    weights = getattr(attention, f"W_{side.upper()}")
    unit = head // (replacement.n_heads // len(weights))  # heads may share keys
    weight = replacement.centre(weights[unit], dim=0)
    biases = getattr(attention, f"b_{side.upper()}", None)
    bias = 0.0 if biases is None else biases.reshape(len(weights), -1)[unit]
    gain = scale.new_full((local.n_tokens, weights.shape[2]), factor)
    if (norm := getattr(attention, f"{side}_norm", None)) is not None:
        gain = gain * (norm.weight + 1 if norm.uses_weight_offset else norm.weight)
        gain = gain / hooks[f"{side}_norm.hook_scale"][unit]
    none = scale.new_zeros(local.n_tokens, 0)
    cos, sin = hooks.get("hook_cos", none), hooks.get("hook_sin", none)

    def read(vectors: Tensor, token: int | slice) -> Tensor:
        made = vectors @ weight / scale[token, None]
        made[0 if isinstance(token, int) else token] += bias
        made = made * gain[token]
        turned, rest = made.tensor_split([cos.shape[-1]], dim=-1)
        first, second = turned.chunk(2, dim=-1)
        rotated = turned * cos[token] + torch.cat([-second, first], dim=-1) * sin[token]
        return torch.cat([rotated, rest], dim=-1)

    return read


def _check(
    local: LocalReplacementModel,
    scores: Float[Tensor, " allowed"],
    pattern: Float[Tensor, " allowed"],
) -> None:
    """Compare scores with the model's own attention pattern.

    Raises:
        OtherScoresError: the scores do not give that pattern.
    """
    config = local.replacement.model.cfg
    cap = config.attn_scores_soft_cap or 0
    capped = cap * torch.tanh(scores / cap) if cap > 0 else scores
    if differ(capped.softmax(dim=0), pattern):
        raise OtherScoresError(
            f"attention scores: {config.architecture} computes them in another way than from "
            "queries and keys with rotary or learned positions; use another model"
        )
