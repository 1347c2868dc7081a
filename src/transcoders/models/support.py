"""Which models can be treated exactly.

A dictionary stands in for an MLP only if the MLP is one map of one normalised input, and what it
gives is added to the residual stream as it is. Logits must follow from the residual stream by the
final norm and the unembedding alone. Both are checked on a few tokens when a model is loaded, so a
family that does something else between its parts is refused before anything is computed with it.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from transcoders.errors import UserError
from transcoders.models.forward import unembed

PROBE_TOKENS = 4
TOLERANCE = 1e-3
"""Of the largest entry. Rounding is a thousandth of that; a missing factor is far above it."""


def unsupported(hf: Any, folder: Path, reason: str) -> UserError:
    """The error for a model that cannot be used."""
    return UserError(
        f"{folder}: models of type {hf.config.model_type!r} cannot be used here: {reason}; use a "
        "decoder whose blocks add the output of one MLP straight to the residual stream, such as "
        "GPT-2, GPT-NeoX, Llama, Mistral, Qwen2, Qwen3, OPT, Phi, Gemma 2 or Gemma 3"
    )


def unsupported_attention(model: Any) -> UserError:
    """The error for a model through whose attention circuits cannot be followed."""
    return UserError(
        f"circuits: the attention of {model.cfg.architecture} does more than mix its values by its "
        "pattern and map them out, so attributions would not add up; circuits need another model"
    )


def missing_part(model: Any) -> str | None:
    """What a bridge lacks of the parts that are read or replaced; None if it has them all."""
    from transformer_lens.model_bridge.generalized_components.moe import MoEBridge

    if not hasattr(model, "blocks"):
        return "TransformerLens gives it no stack of blocks"
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
def broken_sum(model: Any) -> str | None:
    """Where a model does more than add its parts, found on a few tokens; None if nowhere."""
    tokens = torch.arange(PROBE_TOKENS, device=model.cfg.device)[None]
    shape = tokens.shape
    parts = ("hook_resid_pre", "hook_attn_out", "hook_mlp_out", "hook_resid_post")
    names = [f"blocks.{layer}.{part}" for layer in range(model.cfg.n_layers) for part in parts]
    logits, cache = model.run_with_cache(
        tokens, names_filter=[*names, "ln_final.hook_normalized"], use_cache=False
    )
    for layer in range(model.cfg.n_layers):
        before, attention, mlp, after = (
            cache[f"blocks.{layer}.{part}"].reshape(*shape, -1) for part in parts
        )
        if differ(before + attention + mlp, after):
            return f"layer {layer} scales what it adds to the residual stream"
    if differ(unembed(model, cache["ln_final.hook_normalized"]), logits):
        return "its logits are not the final norm times the unembedding"
    return None


def differ(found: Tensor, expected: Tensor) -> bool:
    """Whether two tensors differ by more than rounding."""
    return bool((found - expected).abs().max() > TOLERANCE * expected.abs().max())


@torch.inference_mode()
def blocks_return_tuples(model: Any) -> bool:
    """Whether the blocks return the residual stream in a tuple, or by itself."""
    seen: list[bool] = []

    class Watched(nn.Module):
        def __init__(self, block: nn.Module) -> None:
            super().__init__()
            self.block = block

        def forward(self, *args: Any, **kwargs: Any) -> Any:
            output = self.block(*args, **kwargs)
            seen.append(isinstance(output, tuple))
            return output

    first = model.blocks[0]
    model.blocks[0] = Watched(first)
    try:
        tokens = torch.arange(PROBE_TOKENS, device=model.cfg.device)[None]
        model.original_model.base_model(input_ids=tokens, use_cache=False)
    finally:
        model.blocks[0] = first
    return seen[0]
