"""The replacement model: a language model with transcoders in place of MLPs.

For one prompt, attention patterns, the scales of norms and the sets of active features are frozen
as the prompt makes them, and error nodes hold what the transcoders miss. In this **local
replacement model** the residual stream is a sum of what each part wrote, and each part reads it
linearly:

    residual at (depth, t) = embedding(t)
        + Σ heads h, sources s    A[t, s] · (P x_s / σ_s) W_V W_O
        + Σ active features i     z_i f_dec,i
        + biases + error nodes + MLPs without a transcoder

A is the attention pattern. Where a model has a norm after attention (Gemma 2 and 3), A is divided
by that norm's scale. P subtracts the mean where the norm is a LayerNorm and does nothing where it
is an RMSNorm. P and the weights of the norms are folded into the readers, so that a pull-back only
has to divide by σ.

**Depth** orders reads and writes. Layer l's attention reads at 2l, its MLP at 2l + 1, the logits at
2L. A part that reads at a depth sees what was written at that depth or before. In a parallel block
(Pythia) the MLP reads at 2l too, and both write at 2l + 2.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from transcoders.dictionaries import SparseDictionary
from transcoders.errors import UserError
from transcoders.models import LanguageModel, logit_bias
from transcoders.models.passes import PromptPass, run_prompt
from transcoders.models.support import PROBE_TOKENS, differ, unsupported_attention
from transcoders.splicing import replace_from


class ReplacementModel:
    """A language model with transcoders for some of its MLPs.

    Attributes:
        model: the language model.
        transcoders: by layer. An MLP without one is a single node at each token.
        first_position: tokens before it keep their MLPs: no transcoder was trained on them.
        W_V: (layer, head, d_model, d_head), normalisation folded in.
        W_O: (layer, head, d_head, d_model), the weight of a norm after attention folded in.
        attention_bias: (layer, d_model), what attention adds independently of what it reads.
        attention_reads, mlp_reads: (layer), the depth at which a layer's heads or its MLP read.
        attention_writes, mlp_writes: (layer), the first depth that sees what they write.
    """

    def __init__(
        self,
        model: LanguageModel,
        transcoders: dict[int, SparseDictionary],
        *,
        first_position: int = 0,
    ) -> None:
        """Prepare the weights.

        Raises:
            UserError: a dictionary is not a transcoder, or it has a skip connection, which is not
                a feature.
        """
        for layer, dictionary in transcoders.items():
            if not dictionary.traits.is_transcoder or dictionary.traits.has_skip:
                raise UserError(
                    f"circuits: expected a transcoder at layer {layer}, found a "
                    f"{dictionary.traits.label}; circuits run through features that read an MLP's "
                    "input and alone replace its output"
                )
        self.model = model
        self.transcoders = dict(sorted(transcoders.items()))
        self.first_position = first_position
        self.is_centred = not model.ln_final.uses_rms_norm
        self.n_layers, self.n_heads = model.cfg.n_layers, model.cfg.n_heads
        self.W_V = self.centre(_by_head(model.W_V, self.n_heads), dim=2)
        self.W_O = model.W_O.clone()
        self.attention_bias = _attention_bias(model)
        for layer, block in enumerate(model.blocks):
            if (norm := getattr(block, "ln1_post", None)) is not None:
                weight = norm.weight + 1 if norm.uses_weight_offset else norm.weight
                self.W_O[layer] *= weight
                self.attention_bias[layer] *= weight
        probe = run_prompt(model, torch.arange(PROBE_TOKENS, device=model.cfg.device))
        self.is_parallel = torch.equal(probe.before_attention, probe.before_mlp)
        self.attention_reads = 2 * torch.arange(self.n_layers, device=self.W_O.device)
        self.mlp_reads = self.attention_reads + (0 if self.is_parallel else 1)
        self.mlp_writes = self.attention_reads + 2
        self.attention_writes = self.mlp_writes - (0 if self.is_parallel else 1)
        attention = probe.attention_before(self.n_layers)
        mixed = torch.einsum("lhts,lhse->lhte", attention, self.values(probe))
        written = torch.einsum("lhte,lhed->ltd", mixed, self.W_O)
        bias = self.attention_bias[:, None] / probe.attention_out_scale[..., None]
        if differ(written + bias, probe.attention_out):
            raise unsupported_attention(model)

    def centre(self, vectors: Tensor, dim: int = -1) -> Tensor:
        """Subtract the mean over the residual stream if the norms of the model do so."""
        return vectors - vectors.mean(dim=dim, keepdim=True) if self.is_centred else vectors

    def values(self, passed: PromptPass) -> Float[Tensor, "layer head token d_head"]:
        """What each head takes from each token, without its bias."""
        scaled = passed.before_attention / passed.attention_scale[..., None]
        return torch.einsum("ltd,lhde->lhte", scaled, self.W_V)

    def imitation(self, layer: int) -> Callable[[Tensor, Tensor], Tensor]:
        """What the model goes on with if a layer's MLP is replaced by its transcoder.

        Returns:
            A function of the MLP's input and output, both (batch, position, d_model).
        """
        transcoder, first = self.transcoders[layer], self.first_position
        return lambda mlp_in, mlp_out: replace_from(mlp_out, transcoder(mlp_in[:, first:]), first)

    def encoder_vectors(
        self, layer: int, features: Int[Tensor, " feature"]
    ) -> Float[Tensor, "feature d_model"]:
        """What features read in the residual stream, before division by the scale."""
        return self.centre(self.transcoders[layer].W_enc[:, features].T)

    def unembedding(
        self, tokens: Int[Tensor, " token"]
    ) -> tuple[Float[Tensor, "token d_model"], Float[Tensor, " token"]]:
        """What logits read in the residual stream, before division by the scale; their biases."""
        rows = self.model.W_U[:, tokens].T
        bias = logit_bias(self.model)
        return self.centre(rows), rows.new_zeros(len(tokens)) if bias is None else bias[tokens]

    def transcoder_of(self, layer: int, unit: int, name: str) -> SparseDictionary:
        """The transcoder that a feature belongs to. Errors begin with ``name``.

        Raises:
            UserError: there is no such transcoder or feature.
        """
        found = self.transcoders.get(layer)
        if found is None or unit >= found.n_features:
            has = "no transcoder" if found is None else f"{found.n_features} features"
            known = ", ".join(map(str, self.transcoders)) or "none"
            raise UserError(f"{name}: layer {layer} has {has}; layers with a transcoder: {known}")
        return found

    def check_head(self, layer: int, head: int) -> None:
        """Refuse a head that the model does not have.

        Raises:
            UserError: there is no such layer or head.
        """
        if not (0 <= layer < self.n_layers and 0 <= head < self.n_heads):
            raise UserError(
                f"head attn{layer}[{head}]: expected a layer from 0 to {self.n_layers - 1} and a "
                f"head from 0 to {self.n_heads - 1}"
            )

    def freeze(self, tokens: Int[Tensor, " token"]) -> "LocalReplacementModel":
        """Run a prompt and keep what attribution holds fixed.

        Raises:
            UserError: the prompt is longer than the model's context.
        """
        passed, first = run_prompt(self.model, tokens), self.first_position
        mlp_out, error = passed.mlp.mlp_out.clone(), torch.zeros_like(passed.mlp.mlp_out)
        bias = torch.zeros_like(error)
        none = torch.zeros(0, dtype=torch.long, device=error.device)
        parts = [(none, none, none, error.new_zeros(0))]  # without transcoders
        for layer, transcoder in self.transcoders.items():
            z = transcoder.encode(passed.mlp.mlp_in[layer, first:])
            token, unit = z.nonzero(as_tuple=True)
            at = torch.full_like(token, layer)
            parts.append((token + first, at, unit, z[token, unit]))
            error[layer, first:] = mlp_out[layer, first:] - transcoder.decode(z)
            mlp_out[layer, first:] = 0
            bias[layer, first:] = transcoder.b_dec
        columns = [torch.cat(column) for column in zip(*parts, strict=True)]
        order = torch.argsort(columns[0], stable=True)
        active = ActiveFeatures(*(column[order] for column in columns))
        values = self.values(passed)
        return LocalReplacementModel(self, passed, values, active, error, mlp_out, bias)


def _by_head(
    weights: Float[Tensor, "layer values ..."], n_heads: int
) -> Float[Tensor, "layer head ..."]:
    """One entry for each head. Heads that share values (grouped queries) each have a copy."""
    return weights.repeat_interleave(n_heads // weights.shape[1], dim=1)


def _attention_bias(model: LanguageModel) -> Float[Tensor, "layer d_model"]:
    """What each layer's attention adds independently of what it reads.

    The rows of a pattern sum to 1, so a bias of the values passes unchanged.
    """
    W_O, n_heads = model.W_O, model.cfg.n_heads
    total = W_O.new_zeros(len(W_O), W_O.shape[3])
    if (b_O := getattr(model, "b_O", None)) is not None:
        total += b_O
    if (b_V := getattr(model, "b_V", None)) is not None:
        b_V = _by_head(b_V.reshape(len(W_O), -1, W_O.shape[2]), n_heads)
        total += torch.einsum("lhe,lhed->ld", b_V, W_O)
    return total


@dataclass(frozen=True)
class ActiveFeatures:
    """The active features of all transcoders on one prompt, ordered by token, then by layer."""

    token: Int[Tensor, " active"]
    layer: Int[Tensor, " active"]
    unit: Int[Tensor, " active"]
    z: Float[Tensor, " active"]


@dataclass(frozen=True)
class LocalReplacementModel:
    """The replacement model of one prompt: what is frozen, and what each part writes."""

    replacement: ReplacementModel
    passed: PromptPass
    values: Float[Tensor, "layer head token d_head"]
    """What each head takes from each token, without its bias."""
    active: ActiveFeatures
    error: Float[Tensor, "layer token d_model"]
    """The error nodes: MLP output minus the transcoder's output; 0 without a transcoder."""
    mlp_out: Float[Tensor, "layer token d_model"]
    """Outputs of MLPs without a transcoder; 0 elsewhere."""
    bias: Float[Tensor, "layer token d_model"]
    """``b_dec`` where there is a transcoder; 0 elsewhere."""

    @property
    def n_tokens(self) -> int:
        """Tokens of the prompt, BOS included."""
        return len(self.passed.tokens)

    def decoders(self, which: Int[Tensor, " part"]) -> Float[Tensor, "part d_model"]:
        """What some of the active features write. All of a long prompt's would take gigabytes."""
        layer, unit = self.active.layer[which], self.active.unit[which]
        rows = self.error.new_zeros(len(which), self.error.shape[2])
        for at, transcoder in self.replacement.transcoders.items():
            here = layer == at
            rows[here] = transcoder.W_dec[unit[here]]
        return rows
