"""One prompt through the model, with every tensor that attribution holds fixed."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from transcoders.models.forward import (
    LanguageModel,
    MLPActivations,
    captured,
    mlp_input,
    mlp_output,
    run_blocks,
)


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
    attention_out_scale: Float[Tensor, "layer token"]
    """What the norm after attention divides by; 1 in models that have none."""
    patterns: Float[Tensor, "layer head token source"]
    attention: Float[Tensor, "layer head token source"]
    """How much of a source's value a head adds at a token: pattern over ``attention_out_scale``."""
    attention_out: Float[Tensor, "layer token d_model"]
    """What attention adds to the residual stream."""
    mlp: MLPActivations
    """Stacked by layer: (layer, token, d_model)."""
    logits: Float[Tensor, "token vocabulary"]
    """Before the soft cap, in models that have one."""


@torch.no_grad()
def run_prompt(model: LanguageModel, tokens: Int[Tensor, " token"]) -> PromptPass:
    """Run one prompt and keep what :class:`PromptPass` lists."""
    layers = range(model.cfg.n_layers)
    norm = "ln2" if "blocks.0.ln2.hook_in" in model.hook_dict else "ln1"
    has_post_norm = "blocks.0.ln1_post.hook_scale" in model.hook_dict
    names = [
        "hook_resid_pre", f"{norm}.hook_in", "ln1.hook_scale", f"{norm}.hook_scale",
        "attn.hook_pattern", "hook_attn_out", *(["ln1_post.hook_scale"] if has_post_norm else []),
    ]  # fmt: skip
    wanted = [f"blocks.{layer}.{name}" for layer in layers for name in names]
    wanted += [name for layer in layers for name in (mlp_input(model, layer), mlp_output(layer))]
    final = ["ln_final.hook_in", "ln_final.hook_scale"]
    with captured(model, [*wanted, *final], (1, len(tokens))) as found:
        normalized = run_blocks(model, tokens=tokens[None])

    def stacked(name: str) -> Tensor:
        return torch.stack([found[f"blocks.{layer}.{name}"][0] for layer in layers])

    scale, patterns = stacked("ln1.hook_scale")[..., 0], stacked("attn.hook_pattern")
    out_scale = stacked("ln1_post.hook_scale")[..., 0] if has_post_norm else torch.ones_like(scale)
    return PromptPass(
        tokens=tokens,
        before_attention=stacked("hook_resid_pre"),
        before_mlp=stacked(f"{norm}.hook_in"),
        after=found["ln_final.hook_in"][0],
        attention_scale=scale,
        mlp_scale=stacked(f"{norm}.hook_scale")[..., 0],
        final_scale=found["ln_final.hook_scale"][0, :, 0],
        attention_out_scale=out_scale,
        patterns=patterns,
        attention=patterns / out_scale[:, None, :, None],
        attention_out=stacked("hook_attn_out"),
        mlp=MLPActivations(
            torch.stack([found[mlp_input(model, layer)][0] for layer in layers]),
            torch.stack([found[mlp_output(layer)][0] for layer in layers]),
        ),
        logits=model.unembed(normalized)[0],
    )
