"""Forward passes whose tensors are kept: around one MLP, or of one prompt layer by layer."""

from dataclasses import dataclass
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

PATTERNS_KEPT = 2**27
"""The attention patterns of a prompt are kept if they have at most this many numbers (heads times
the square of its tokens; half a GB). Those of longer prompts are made anew when asked for."""
LOGIT_ROWS = 512
"""Tokens whose logits are computed together."""


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
    patterns: "list[Float[Tensor, 'head token source']] | PatternsMadeAnew"
    """By layer."""
    attention_out: Float[Tensor, "layer token d_model"]
    """What attention adds to the residual stream."""
    mlp: MLPActivations
    """Stacked by layer: (layer, token, d_model)."""
    normalized: Float[Tensor, "token d_model"]
    """After the final norm: :func:`logits_after` makes logits of it."""

    def attention(
        self, layer: int, token: int | slice | Int[Tensor, " token"] = slice(None)
    ) -> Float[Tensor, "head *token source"]:
        """How much of a source's value a layer's heads add at some tokens."""
        pattern = self.patterns[layer][:, token]
        return pattern / self.attention_out_scale[layer, token, None]

    def attention_before(
        self, layer: int, token: int | slice | Int[Tensor, " token"] = slice(None)
    ) -> Float[Tensor, "layer head *token source"]:
        """The same for all layers before one."""
        found = [self.attention(at, token) for at in range(max(layer, 1))]  # the first has a shape
        return torch.stack(found)[:layer]

    def strengths(
        self,
        layer: Int[Tensor, " part"],
        head: Int[Tensor, " part"],
        token: Int[Tensor, " part"],
        source: Int[Tensor, " part"],
    ) -> Float[Tensor, " part"]:
        """The same for single heads, tokens and sources."""
        found = self.after.new_zeros(len(layer))
        for at in layer.unique().tolist():
            here = layer == at
            found[here] = self.patterns[at][head[here], token[here], source[here]]
        return found / self.attention_out_scale[layer, token]


@dataclass(frozen=True)
class PatternsMadeAnew:
    """The attention patterns of a long prompt: each time one is asked for, its layer runs."""

    model: LanguageModel
    residuals: Float[Tensor, "layer token d_model"]
    """Before each layer."""

    @torch.no_grad()
    def __getitem__(self, layer: int) -> Float[Tensor, "head token source"]:
        """The same bits as in the run of the whole model."""
        residual, name = self.residuals[layer][None], f"blocks.{layer}.attn.hook_pattern"
        with captured(self.model, [name], residual.shape[:2]) as found:
            run_blocks(self.model, residual=residual, start=layer, stop=layer + 1)
        return found[name][0]


def keeps_patterns(model: LanguageModel, n_tokens: int) -> bool:
    """Whether there is room for a number for each head, token and source of a prompt."""
    return bool(model.cfg.n_layers * model.cfg.n_heads * n_tokens**2 <= PATTERNS_KEPT)


def logits_after(
    model: LanguageModel, passed: PromptPass, token: int
) -> Float[Tensor, " vocabulary"]:
    """The logits after a token of a prompt, before the soft cap, in models that have one.

    They are computed for a block of tokens, since a product with one row rounds differently.
    """
    start = token - token % LOGIT_ROWS
    return model.unembed(passed.normalized[None, start : start + LOGIT_ROWS])[0, token - start]


@torch.no_grad()
def run_prompt(model: LanguageModel, tokens: Int[Tensor, " token"]) -> PromptPass:
    """Run one prompt and keep what :class:`PromptPass` lists."""
    layers = range(model.cfg.n_layers)
    norm = "ln2" if "blocks.0.ln2.hook_in" in model.hook_dict else "ln1"
    has_post_norm = "blocks.0.ln1_post.hook_scale" in model.hook_dict
    names = [
        "hook_resid_pre", f"{norm}.hook_in", "ln1.hook_scale", f"{norm}.hook_scale",
        "hook_attn_out", f"{norm}.hook_normalized", "hook_mlp_out",
        *(["ln1_post.hook_scale"] if has_post_norm else []),
    ]  # fmt: skip
    wanted = [f"blocks.{layer}.{name}" for layer in layers for name in names]
    final = ["ln_final.hook_in", "ln_final.hook_scale"]
    kept: list[Tensor] = []
    keeps = keeps_patterns(model, len(tokens))

    def keep(pattern: Tensor) -> None:
        if keeps:
            kept.append(pattern[0])

    # Patterns that are not kept are watched too: unwatched attention rounds differently.
    watching = {f"blocks.{layer}.attn.hook_pattern": keep for layer in layers}
    shape = 1, len(tokens)
    with captured(model, [*wanted, *final], shape) as found, interventions(model, watching, shape):
        normalized = run_blocks(model, tokens=tokens[None])

    # It lets go of what it stacks, so a name can be asked for only once. Where one norm serves
    # attention and MLP, its scale is asked for here and given to both.
    def stacked(name: str) -> Tensor:
        return torch.stack([found.pop(f"blocks.{layer}.{name}")[0] for layer in layers])

    scale, before_attention = stacked("ln1.hook_scale")[..., 0], stacked("hook_resid_pre")
    out_scale = stacked("ln1_post.hook_scale")[..., 0] if has_post_norm else torch.ones_like(scale)
    return PromptPass(
        tokens=tokens,
        before_attention=before_attention,
        before_mlp=stacked(f"{norm}.hook_in"),
        after=found["ln_final.hook_in"][0],
        attention_scale=scale,
        mlp_scale=scale if norm == "ln1" else stacked(f"{norm}.hook_scale")[..., 0],
        final_scale=found["ln_final.hook_scale"][0, :, 0],
        attention_out_scale=out_scale,
        patterns=kept if keeps else PatternsMadeAnew(model, before_attention),
        attention_out=stacked("hook_attn_out"),
        mlp=MLPActivations(stacked(f"{norm}.hook_normalized"), stacked("hook_mlp_out")),
        normalized=normalized[0],
    )
