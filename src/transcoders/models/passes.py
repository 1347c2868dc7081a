"""Forward passes whose tensors are kept: around one MLP, or of one prompt layer by layer."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from transcoders.models.forward import (
    LanguageModel,
    MLPActivations,
    captured,
    interventions,
    mlp_input,
    mlp_output,
    run_blocks,
)


class SitePass(NamedTuple):
    """A forward pass of the whole model, kept so that it can be continued from one layer on."""

    activations: MLPActivations
    residual_before: Float[Tensor, "batch position d_model"]
    """The residual stream before the site's layer."""
    residual_after: Float[Tensor, "batch position d_model"]
    """The residual stream after the site's layer."""
    normalized: Float[Tensor, "batch position d_model"]
    """After the final norm: :func:`unembed` makes logits of it."""


@torch.inference_mode()
def run_through_site(
    model: LanguageModel, tokens: Int[Tensor, "batch position"], layer: int
) -> SitePass:
    """Run the whole model once and keep what :func:`continue_with_mlp_out` needs."""
    residuals = [f"blocks.{layer}.hook_resid_{side}" for side in ("pre", "post")]
    names = [mlp_input(model, layer), mlp_output(layer), *residuals]
    with captured(model, names, tokens.shape) as found:
        normalized = run_blocks(model, tokens=tokens)
    mlp_in, mlp_out, before, after = (found[name] for name in names)
    return SitePass(MLPActivations(mlp_in, mlp_out), before, after, normalized)


@torch.inference_mode()
def continue_with_mlp_out(
    model: LanguageModel,
    site: SitePass,
    layer: int,
    mlp_out: Float[Tensor, "batch position d_model"],
) -> Float[Tensor, "batch position d_model"]:
    """What the model gives to :func:`unembed` with the output of one layer's MLP replaced.

    Only the layers after the site run. The replacement enters as a difference, so putting back the
    MLP's own output leaves every bit of the residual stream as it was.
    """
    residual = site.residual_after + (mlp_out - site.activations.mlp_out)
    return run_blocks(model, residual=residual, start=layer + 1)


@torch.inference_mode()
def mlp_out_for(
    model: LanguageModel,
    site: SitePass,
    layer: int,
    mlp_in: Float[Tensor, "batch position d_model"],
) -> Float[Tensor, "batch position d_model"]:
    """What a layer's MLP writes when it is given another input. Only that layer runs."""
    own = f"blocks.{layer}.ln2.hook_out"
    entrance = own if own in model.hook_dict else f"blocks.{layer}.mlp.hook_in"
    shape = mlp_in.shape[:2]
    with (
        interventions(model, {entrance: lambda _: mlp_in}, shape),
        captured(model, [mlp_output(layer)], shape) as found,
    ):
        run_blocks(model, residual=site.residual_before, start=layer, stop=layer + 1)
    return found[mlp_output(layer)]


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
        "attn.hook_pattern", "hook_attn_out", f"{norm}.hook_normalized", "hook_mlp_out",
        *(["ln1_post.hook_scale"] if has_post_norm else []),
    ]  # fmt: skip
    wanted = [f"blocks.{layer}.{name}" for layer in layers for name in names]
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
        # Where nothing divides it, the same tensor: that of a long prompt is large.
        attention=patterns / out_scale[:, None, :, None] if has_post_norm else patterns,
        attention_out=stacked("hook_attn_out"),
        mlp=MLPActivations(stacked(f"{norm}.hook_normalized"), stacked("hook_mlp_out")),
        logits=model.unembed(normalized)[0],
    )
