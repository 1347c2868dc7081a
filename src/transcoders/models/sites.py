"""A forward pass around one MLP, and what comes of it when that MLP gives something else."""

from dataclasses import dataclass

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
    unembed,
)


@dataclass
class SitePass:
    """A forward pass of the whole model, kept so that it can be continued from one layer on."""

    activations: MLPActivations
    residual_before: Float[Tensor, "batch position d_model"]
    """The residual stream before the site's layer."""
    residual_after: Float[Tensor, "batch position d_model"]
    """The residual stream after the site's layer."""
    logits: Float[Tensor, "batch position vocabulary"]


@torch.inference_mode()
def run_through_site(
    model: LanguageModel, tokens: Int[Tensor, "batch position"], layer: int
) -> SitePass:
    """Run the whole model once and keep what :func:`continue_with_mlp_out` needs."""
    names = [
        mlp_input(model, layer),
        mlp_output(layer),
        f"blocks.{layer}.hook_resid_pre",
        f"blocks.{layer}.hook_resid_post",
    ]
    with captured(model, names, tokens.shape) as found:
        logits = unembed(model, run_blocks(model, tokens=tokens))
    mlp_in, mlp_out, before, after = (found[name] for name in names)
    return SitePass(MLPActivations(mlp_in, mlp_out), before, after, logits)


@torch.inference_mode()
def continue_with_mlp_out(
    model: LanguageModel,
    site: SitePass,
    layer: int,
    mlp_out: Float[Tensor, "batch position d_model"],
) -> Float[Tensor, "batch position vocabulary"]:
    """Logits of the model with the output of one layer's MLP replaced.

    Only the layers after the site run. The replacement enters as a difference, so putting back the
    MLP's own output leaves every bit of the residual stream as it was.
    """
    residual = site.residual_after + (mlp_out - site.activations.mlp_out)
    return unembed(model, run_blocks(model, residual=residual, start=layer + 1))


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
