"""Attention as linear maps between residual streams, once its pattern is given.

With the pattern A held fixed, a head adds A[t, s] · norm(x_s) W_V W_O to the residual stream at
token t for every source token s. What differs between families is only where the matrices lie.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from transcoders.models.language_model import LanguageModel, in_by_out


class AttentionWeights(NamedTuple):
    """The value and output maps of one layer's heads; the weights of the norm before are in them.

    Heads that share their values (grouped-query attention) each have a copy.
    """

    W_V: Float[Tensor, "head d_model d_head"]
    b_V: Float[Tensor, "head d_head"]
    W_O: Float[Tensor, "head d_head d_model"]
    b_O: Float[Tensor, " d_model"]

    @property
    def bias(self) -> Float[Tensor, " d_model"]:
        """What attention adds whatever it reads: a pattern's rows sum to 1, so b_V passes whole."""
        return self.b_O + torch.einsum("he,hed->d", self.b_V, self.W_O)


@torch.no_grad()
def attention_weights(model: LanguageModel, layer: int) -> AttentionWeights:
    """The value and output maps of a layer's attention."""
    block, architecture = model.blocks[layer], model.architecture
    norm = block.get_submodule(architecture.norm_before_attention)
    output = block.get_submodule(architecture.attention_output)
    n_heads = model.hf.config.num_attention_heads
    W_V, b_V = _values(block.get_submodule(architecture.attention), model.hf.config)
    W_O = in_by_out(output)
    if (norm_bias := getattr(norm, "bias", None)) is not None:
        b_V = b_V + norm_bias @ W_V
    W_V = W_V * norm.weight[:, None]
    d_head = W_O.shape[0] // n_heads
    # (d_model, n_values · d_head) → (n_values, d_model, d_head), then a copy for each head.
    W_V = W_V.unflatten(1, (-1, d_head)).permute(1, 0, 2)
    copies = n_heads // len(W_V)
    return AttentionWeights(
        W_V=W_V.repeat_interleave(copies, dim=0),
        b_V=b_V.unflatten(0, (-1, d_head)).repeat_interleave(copies, dim=0),
        W_O=W_O.unflatten(0, (n_heads, d_head)),
        b_O=_bias_of(output, W_O.new_zeros(W_O.shape[1])),
    )


def _values(attention: Any, config: Any) -> tuple[Tensor, Tensor]:
    """Weight (d_model, values) and bias of the value map."""
    d_model = config.hidden_size
    if config.model_type == "gpt2":  # queries, keys and values of all heads, one after another
        return attention.c_attn.weight[:, 2 * d_model :], attention.c_attn.bias[2 * d_model :]
    if config.model_type == "gpt_neox":  # queries, keys and values of a head, then the next head
        joint = attention.query_key_value
        weight = in_by_out(joint)
        by_head = (config.num_attention_heads, 3, -1)
        bias = _bias_of(joint, weight.new_zeros(weight.shape[1]))
        return (
            weight.unflatten(1, by_head)[:, :, 2].flatten(1),
            bias.unflatten(0, by_head)[:, 2].flatten(),
        )
    weight = in_by_out(attention.v_proj)
    return weight, _bias_of(attention.v_proj, weight.new_zeros(weight.shape[1]))


def _bias_of(linear: Any, otherwise: Tensor) -> Tensor:
    bias = getattr(linear, "bias", None)
    return otherwise if bias is None else bias
