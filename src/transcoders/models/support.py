"""Which models can be treated exactly.

A dictionary can replace an MLP only if the MLP is one map of one normalised input and its output is
added to the residual stream as it is. Logits must follow from the residual stream by the final norm
and the unembedding alone. Both are checked on a few tokens when a model is loaded. So a family that
does something else between its parts is refused before anything is computed with it.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from transcoders.errors import UserError
from transcoders.models.forward import unembed

PROBE_TOKENS = 4
TOLERANCE = 1e-3
"""Relative to the largest entry. Rounding is a thousand times smaller, a lost factor far larger."""


def unsupported(config: Any, folder: Path, reason: str) -> UserError:
    """The error for a model of a family that cannot be used."""
    return UserError(
        f"{folder}: models of type {config.model_type!r} cannot be used here: {reason}; use a "
        "decoder whose blocks add the output of one MLP straight to the residual stream, such as "
        "GPT-2, GPT-NeoX, Llama, Mistral, Qwen2, Qwen3, OPT, Phi, Gemma 2 or Gemma 3"
    )


def unsupported_attention(model: Any) -> UserError:
    """The error for a model whose attention cannot be followed in a circuit."""
    return UserError(
        f"circuits: the attention of {model.cfg.architecture} does more than mix its values by its "
        "pattern and map them out, so attributions would not add up; circuits need another model"
    )


def missing_part(model: Any) -> str | None:
    """The first part that is read or replaced and that a bridge lacks; None if it has them all."""
    from transformer_lens.model_bridge.generalized_components.moe import MoEBridge

    if not hasattr(model, "blocks"):
        return "TransformerLens gives it no stack of blocks"
    if "ln_final.hook_normalized" not in model.hook_dict:
        return "no norm stands before its logits"
    for layer, block in enumerate(model.blocks):
        if isinstance(getattr(block, "mlp", None), MoEBridge):
            return f"layer {layer} is a mixture of experts, which is no single MLP"
        norm = "ln2" if hasattr(block, "ln2") else "ln1"
        for part in ("attn", "mlp", norm):
            if not hasattr(block, part):
                return f"layer {layer} has no {part}"
        if f"blocks.{layer}.{norm}.hook_normalized" not in model.hook_dict:
            return f"no norm stands before the MLP of layer {layer}"
    return None


@torch.inference_mode()
def probe(model: Any) -> tuple[str | None, bool]:
    """Run a model on a few tokens.

    Returns:
        The first place where the model does more than add its parts, or None; and whether its
        blocks return the residual stream in a tuple.
    """
    tokens = torch.arange(PROBE_TOKENS, device=model.cfg.device)[None]
    parts = ("hook_resid_pre", "hook_attn_out", "hook_mlp_out", "hook_resid_post")
    layers = range(model.cfg.n_layers)
    names = [f"blocks.{layer}.{part}" for layer in layers for part in parts]
    in_tuples: list[bool] = []
    watch = model.blocks[0].register_forward_hook(
        lambda _, __, output: in_tuples.append(isinstance(output, tuple))
    )
    logits, cache = model.run_with_cache(
        tokens, names_filter=[*names, "ln_final.hook_normalized"], use_cache=False
    )
    watch.remove()
    broken = None
    if differ(unembed(model, cache["ln_final.hook_normalized"]), logits):
        broken = "its logits are not the final norm times the unembedding"
    for layer in reversed(layers):
        before, attention, mlp, after = (
            cache[f"blocks.{layer}.{part}"].reshape(*tokens.shape, -1) for part in parts
        )
        if differ(before + attention + mlp, after):
            broken = f"layer {layer} scales what it adds to the residual stream"
    return broken, in_tuples[0]


def differ(found: Tensor, expected: Tensor) -> bool:
    """Whether two tensors differ by more than rounding."""
    return bool((found - expected).abs().max() > TOLERANCE * expected.abs().max())
