"""One prompt through the model, with every tensor that attribution holds fixed."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from transcoders.models.language_model import LanguageModel, MLPActivations, removed_after


class PromptPass(NamedTuple):
    """A forward pass on one prompt, layer by layer."""

    tokens: Int[Tensor, " token"]
    before_attention: Float[Tensor, "layer token d_model"]
    """The residual stream that a layer's attention reads, before normalisation."""
    before_mlp: Float[Tensor, "layer token d_model"]
    """The same for its MLP; in a parallel block, the same tensor."""
    after: Float[Tensor, "token d_model"]
    """The residual stream after the last layer, before normalisation."""
    attention_scale: Float[Tensor, "layer token"]
    """What normalisation divides by."""
    mlp_scale: Float[Tensor, "layer token"]
    final_scale: Float[Tensor, " token"]
    patterns: Float[Tensor, "layer head token source"]
    mlp: MLPActivations
    """Stacked by layer: (layer, token, d_model)."""
    logits: Float[Tensor, "token vocabulary"]


@torch.no_grad()
def run_prompt(model: LanguageModel, tokens: Int[Tensor, " token"]) -> PromptPass:
    """Run one prompt and keep what :class:`PromptPass` lists."""
    architecture = model.architecture
    final_norm = model.hf.get_submodule(architecture.final_norm)
    norms = [
        (
            block.get_submodule(architecture.norm_before_attention),
            block.get_submodule(architecture.norm_before_mlp),
        )
        for block in model.blocks
    ]
    read: dict[nn.Module, Tensor] = {}
    activations: list[MLPActivations] = []

    def keep(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        read[module] = arguments[0][0]

    def keep_mlp(_: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        activations.append(MLPActivations(arguments[0][0], output[0]))

    watched = [final_norm, *(norm for pair in norms for norm in pair)]
    hooks = [norm.register_forward_pre_hook(keep) for norm in watched]
    hooks += [block.mlp.register_forward_hook(keep_mlp) for block in model.blocks]
    implementation = model.hf.config._attn_implementation
    model.hf.set_attn_implementation("eager")  # the only one that gives its patterns
    try:
        with removed_after(hooks):
            output = model.hf(input_ids=tokens[None], use_cache=False, output_attentions=True)
    finally:
        model.hf.set_attn_implementation(implementation)

    def stacked(of: Callable[[nn.Module], Tensor], part: int) -> Tensor:
        return torch.stack([of(pair[part]) for pair in norms])

    return PromptPass(
        tokens=tokens,
        before_attention=stacked(read.__getitem__, 0),
        before_mlp=stacked(read.__getitem__, 1),
        after=read[final_norm],
        attention_scale=stacked(lambda norm: _scale(norm, read[norm]), 0),
        mlp_scale=stacked(lambda norm: _scale(norm, read[norm]), 1),
        final_scale=_scale(final_norm, read[final_norm]),
        patterns=torch.cat(output.attentions),
        mlp=MLPActivations(*(torch.stack(tensors) for tensors in zip(*activations, strict=True))),
        logits=output.logits[0],
    )


def _scale(norm: Any, residual: Float[Tensor, "token d_model"]) -> Float[Tensor, " token"]:
    if isinstance(norm, nn.LayerNorm):
        return (residual.var(dim=1, correction=0) + norm.eps).sqrt()
    return (residual.square().mean(dim=1) + norm.variance_epsilon).sqrt()
