"""Which tokens should make a feature active? Said from weights alone, before any text is seen.

For a feature vector f of some layer, each token t of the vocabulary gets a score, by three methods:

- **direct**: its de-embedding, E_t f;
- **layer 0, linear**: the features i of layer 0 that f is connected to most, each de-embedded and
  weighted by the connection: sum over i of (f_dec,i f) (E_t f_enc,i), as in the paper's Figure 5;
- **layer 0**: what the token's own embedding, seen alone, makes of layer 0's features:
  E_t f + sum over all i of z_i(E_t) (f_dec,i f), the token's path through the first MLP.

Tokens at **earlier positions** act through heads: for every head below the feature, f is replaced
by what the head reads to move f, W_V W_O f, and the heads with the largest scores are kept. No
attention pattern is used, since that depends on the text.
"""

from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from transcoders.circuits.invariant import best_products, through_head
from transcoders.circuits.replacement import ReplacementModel

Method = Literal["direct", "layer 0, linear", "layer 0"]
METHODS: tuple[Method, ...] = get_args(Method)
N_UPSTREAM = 10
"""Features of layer 0 of the linear method; the paper's number."""
N_HEADS = 3
"""Heads whose tokens are predicted at earlier positions."""
BLOCK = 4096
"""Tokens of the vocabulary that are looked at together."""


class Vocabulary(NamedTuple):
    """The embeddings of all tokens, each as it would be in a prompt of its own."""

    embedding: Float[Tensor, "token d_model"]
    z: list[Float[Tensor, "block n_features"]]
    """Activations of layer 0's features on each embedding alone, sparse, block by block."""


def read_vocabulary(replacement: ReplacementModel) -> Vocabulary:
    """Run every token's embedding, alone, through the first MLP's transcoder.

    Attention of layer 0 is left out: at most it would add what the token itself holds.
    """
    model, block = replacement.model, replacement.model.blocks[0]
    norm = block.ln2 if hasattr(block, "ln2") else block.ln1
    with torch.no_grad():
        # As it enters the residual stream: Gemma multiplies it first.
        embedding = model.embed(torch.arange(model.cfg.n_tokens, device=model.cfg.device)[None])[0]
        z = [
            replacement.transcoders[0].encode(norm(part)).to_sparse()
            for part in embedding.split(BLOCK)
        ]
    return Vocabulary(embedding, z)


def score_tokens(
    replacement: ReplacementModel,
    vocabulary: Vocabulary,
    vectors: Float[Tensor, "vector d_model"],
    method: Method,
) -> Float[Tensor, "vector token"]:
    """The score of every token of the vocabulary for each feature vector."""
    direct = vectors @ vocabulary.embedding.T
    if method == "direct":
        return direct
    W_dec = replacement.transcoders[0].W_dec
    if method == "layer 0, linear":
        best = best_products(vectors, W_dec, N_UPSTREAM)
        pulled = torch.stack(
            [
                values @ replacement.encoder_vectors(0, features)
                for values, features in zip(best.values, best.indices, strict=True)
            ]
        )
        return pulled @ vocabulary.embedding.T
    connections = W_dec @ vectors.T  # (n_features, vector)
    return direct + torch.cat([z @ connections for z in vocabulary.z]).T


def vectors_of_heads(
    replacement: ReplacementModel,
    vocabulary: Vocabulary,
    vector: Float[Tensor, " d_model"],
    layer: int,
) -> Float[Tensor, "head d_model"]:
    """What the heads below a feature read to move it: those through which a token can move it most.

    Args:
        replacement: the model.
        vocabulary: its tokens.
        vector: of the feature.
        layer: of the feature.
    """
    readable = [
        at for at in range(replacement.n_layers)
        if int(replacement.attention_writes[at]) <= int(replacement.mlp_reads[layer])
    ]  # fmt: skip
    pulled = torch.cat(
        [
            through_head(replacement, vector[None], at, head)
            for at in readable
            for head in range(replacement.n_heads)
        ]
    )
    # By how far the best tokens stand out, on a sample of the vocabulary: scales differ by layer.
    sample = vocabulary.embedding[:: max(len(vocabulary.embedding) // 2048, 1)]
    scores = pulled @ sample.T
    best: Int[Tensor, " head"] = scores.amax(dim=1).topk(min(N_HEADS, len(pulled))).indices
    return pulled[best]
