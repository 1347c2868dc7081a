"""A model with transcoders as what attribution sees: linear maps, and what a prompt fixes in them.

Hold attention patterns, normalisation scales and the sets of active features as a prompt makes
them, and the residual stream is a sum of what each part wrote, each part reading it linearly:

    residual at (depth, t) = embedding(t)
        + Σ heads h, sources s    A[t, s] · (P x_s / σ_s) W_V W_O
        + Σ active features i     z_i f_dec,i
        + biases + errors of the transcoders + MLPs without a transcoder

P subtracts the mean where the norm is a LayerNorm and does nothing where it is an RMSNorm. It is
folded into the readers here, as the norms' weights are, so that a pull-back only divides by σ.

**Depth** orders reads and writes. Layer l's attention reads at 2l, its MLP at 2l + 1, the logits at
2L. A part that reads at a depth sees what was written at that depth or before. In a parallel block
(Pythia) the MLP reads at 2l too, and both write at 2l + 2.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from transcoders.dictionaries import SparseDictionary
from transcoders.errors import UserError
from transcoders.models import LanguageModel
from transcoders.models.attention import attention_weights
from transcoders.models.prompt import PromptPass, run_prompt


class CircuitModel:
    """A language model with transcoders for some of its MLPs.

    Attributes:
        model: the language model.
        transcoders: by layer. An MLP without one is a single, opaque node at each token.
        first_position: tokens before it keep their MLPs: no transcoder was trained on them.
        W_V: (layer, head, d_model, d_head), normalisation folded in.
        W_O: (layer, head, d_head, d_model).
        attention_bias: (layer, d_model), what attention adds whatever it reads.
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
            UserError: a dictionary is no transcoder, or adds a skip, which is no feature.
        """
        for layer, dictionary in transcoders.items():
            if not dictionary.traits.is_transcoder or dictionary.traits.has_skip:
                raise UserError(
                    f"circuits: expected a transcoder at layer {layer}, found a "
                    f"{dictionary.traits.label}; circuits run through features that read an MLP's "
                    "input and are all that replaces its output"
                )
        self.model = model
        self.transcoders = dict(sorted(transcoders.items()))
        self.first_position = first_position
        final_norm = model.hf.get_submodule(model.architecture.final_norm)
        self.is_centred = isinstance(final_norm, nn.LayerNorm)
        self._final_norm = final_norm
        self.is_parallel = getattr(model.hf.config, "use_parallel_residual", False)
        attention = [attention_weights(model, layer) for layer in range(len(model.blocks))]
        W_V = torch.stack([weights.W_V for weights in attention])
        self.W_V = self.centre(W_V, dim=2)
        self.W_O = torch.stack([weights.W_O for weights in attention])
        self.attention_bias = torch.stack([weights.bias for weights in attention])

    @property
    def n_layers(self) -> int:
        """Layers of the language model."""
        return len(self.W_O)

    @property
    def n_heads(self) -> int:
        """Attention heads of a layer."""
        return self.W_O.shape[1]

    def attention_reads(self, layer: Tensor | int) -> Tensor | int:
        """The depth at which a layer's heads read."""
        return 2 * layer

    def mlp_reads(self, layer: Tensor | int) -> Tensor | int:
        """The depth at which a layer's MLP reads."""
        return 2 * layer + (0 if self.is_parallel else 1)

    @cached_property
    def attention_writes(self) -> Int[Tensor, " layer"]:
        """The first depth that sees what a layer's heads write."""
        return 2 * torch.arange(self.n_layers, device=self.W_O.device) + (
            2 if self.is_parallel else 1
        )

    @cached_property
    def mlp_writes(self) -> Int[Tensor, " layer"]:
        """The first depth that sees what a layer's MLP writes."""
        return 2 * torch.arange(self.n_layers, device=self.W_O.device) + 2

    def centre(self, vectors: Tensor, dim: int = -1) -> Tensor:
        """Subtract the mean over the residual stream where the norms do; else nothing."""
        return vectors - vectors.mean(dim=dim, keepdim=True) if self.is_centred else vectors

    def encoder_vectors(
        self, layer: int, features: Int[Tensor, " feature"]
    ) -> Float[Tensor, "feature d_model"]:
        """What features read in the residual stream, but for the scale."""
        return self.centre(self.transcoders[layer].W_enc[:, features].T)

    def unembedding(
        self, tokens: Int[Tensor, " token"]
    ) -> tuple[Float[Tensor, "token d_model"], Float[Tensor, " token"]]:
        """What logits read in the residual stream, but for the scale; and their biases."""
        output = self.model.hf.get_output_embeddings()
        rows = output.weight[tokens]
        bias = rows.new_zeros(len(tokens))
        if (norm_bias := getattr(self._final_norm, "bias", None)) is not None:
            bias = rows @ norm_bias
        if getattr(output, "bias", None) is not None:
            bias = bias + output.bias[tokens]
        return self.centre(rows * self._final_norm.weight), bias

    def run(self, tokens: Int[Tensor, " token"]) -> "Run":
        """Run a prompt and keep what attribution holds fixed.

        Raises:
            UserError: the prompt is longer than the model's context.
        """
        limit = self.model.hf.config.max_position_embeddings
        if len(tokens) > limit:
            raise UserError(
                f"prompt: {len(tokens)} tokens, expected at most {limit}, the model's context; "
                "shorten it"
            )
        return Run.of(self, run_prompt(self.model, tokens))


@dataclass(frozen=True)
class ActiveFeatures:
    """The active features of all transcoders on one prompt, ordered by token, then by layer."""

    token: Int[Tensor, " active"]
    layer: Int[Tensor, " active"]
    unit: Int[Tensor, " active"]
    z: Float[Tensor, " active"]
    decoder: Float[Tensor, "active d_model"]


@dataclass(frozen=True)
class Run:
    """What one prompt fixes."""

    circuit: CircuitModel
    passed: PromptPass
    values: Float[Tensor, "layer head token d_head"]
    """What each head takes from each token, without its bias."""
    active: ActiveFeatures
    error: Float[Tensor, "layer token d_model"]
    """MLP output minus its transcoder's; 0 where there is none."""
    opaque: Float[Tensor, "layer token d_model"]
    """Outputs of the MLPs that no transcoder stands in for; 0 elsewhere."""
    bias: Float[Tensor, "layer token d_model"]
    """``b_dec`` where a transcoder stands; 0 elsewhere."""

    @classmethod
    def of(cls, circuit: CircuitModel, passed: PromptPass) -> "Run":
        """Encode the MLPs' inputs and split their outputs."""
        first = circuit.first_position
        opaque, error = passed.mlp.mlp_out.clone(), torch.zeros_like(passed.mlp.mlp_out)
        bias = torch.zeros_like(error)
        parts = []
        for layer, transcoder in circuit.transcoders.items():
            z = transcoder.encode(passed.mlp.mlp_in[layer, first:])
            token, unit = z.nonzero(as_tuple=True)
            parts.append(
                (
                    token + first,
                    torch.full_like(token, layer),
                    unit,
                    z[token, unit],
                    transcoder.W_dec[unit],
                )
            )
            error[layer, first:] = opaque[layer, first:] - transcoder.decode(z)
            opaque[layer, first:] = 0
            bias[layer, first:] = transcoder.b_dec
        width = error.shape[2]
        none = torch.zeros(0, dtype=torch.long, device=error.device)
        parts.append((none, none, none, error.new_zeros(0), error.new_zeros(0, width)))
        columns = [torch.cat(column) for column in zip(*parts, strict=True)]
        order = torch.argsort(columns[0], stable=True)
        scaled = passed.before_attention / passed.attention_scale[..., None]
        return cls(
            circuit=circuit,
            passed=passed,
            values=torch.einsum("ltd,lhde->lhte", scaled, circuit.W_V),
            active=ActiveFeatures(*(column[order] for column in columns)),
            error=error,
            opaque=opaque,
            bias=bias,
        )

    @property
    def n_tokens(self) -> int:
        """Tokens of the prompt, BOS included."""
        return len(self.passed.tokens)

    def position(self, token: int) -> int:
        """A token counted from 0, from one that may be counted from the end.

        Raises:
            UserError: the prompt has no such token.
        """
        position = token + self.n_tokens if token < 0 else token
        if not 0 <= position < self.n_tokens:
            raise UserError(
                f"token {token}: expected one from {-self.n_tokens} to {self.n_tokens - 1}, since "
                f"the prompt has {self.n_tokens} tokens with BOS"
            )
        return position

    def at(self, tokens: Int[Tensor, " wanted"]) -> Bool[Tensor, " active"]:
        """Which of the active features are at one of these tokens."""
        return torch.isin(self.active.token, tokens)
