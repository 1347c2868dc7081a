"""Running a language model: the tensors around its MLPs, interventions, some of its blocks.

A model is TransformerLens's ``TransformerBridge`` in compatibility mode: the weights of every norm
are folded into what reads it, and tensors go by the paper's hook names. A dictionary of layer l
reads ``blocks.l.ln2.hook_normalized`` and imitates ``blocks.l.hook_mlp_out``, which is added to
the residual stream as it is. Where attention and MLP share one norm (Phi, GPT-J), the MLP's input
is ``blocks.l.ln1.hook_normalized``.

Loops that run a model many times go through :func:`run_blocks`: the same hooks and tensors as
calling the bridge, but blocks that are not needed do not run. (TransformerLens's own
``start_at_layer`` runs the earlier blocks and discards what they give, and calling the bridge
always runs the unembedding.)
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from transcoders.errors import UserError
from transcoders.models.checks import n_positions

LanguageModel = Any
"""A ``TransformerBridge``. Importing the class takes seconds, so only :func:`load_model` does."""


class MLPActivations(NamedTuple):
    """What enters and leaves one MLP."""

    mlp_in: Float[Tensor, "batch position d_model"]
    """After normalisation."""
    mlp_out: Float[Tensor, "batch position d_model"]
    """As it is added to the residual stream: after the second norm of a model that has one."""


def mlp_input(model: LanguageModel, layer: int) -> str:
    """The hook name of what a layer's MLP reads, after normalisation."""
    norm = "ln2" if hasattr(model.blocks[layer], "ln2") else "ln1"
    return f"blocks.{layer}.{norm}.hook_normalized"


def mlp_output(layer: int) -> str:
    """The hook name of what a layer's MLP adds to the residual stream."""
    return f"blocks.{layer}.hook_mlp_out"


@torch.inference_mode()
def mlp_activations(
    model: LanguageModel, tokens: Int[Tensor, "batch position"], layers: Sequence[int]
) -> dict[int, MLPActivations]:
    """Inputs and outputs of the MLPs of ``layers``. Later blocks and the unembedding do not run."""
    names = [name for layer in layers for name in (mlp_input(model, layer), mlp_output(layer))]
    with captured(model, names, tokens.shape) as found:
        run_blocks(model, tokens=tokens, stop=max(layers) + 1)
    return {
        layer: MLPActivations(found[mlp_input(model, layer)], found[mlp_output(layer)])
        for layer in layers
    }


@contextmanager
def captured(
    model: LanguageModel, names: Iterable[str], shape: Sequence[int]
) -> Iterator[dict[str, Tensor]]:
    """Keep what passes some hooks within the block: tensors of shape (batch, position, ...).

    Args:
        model: whose hooks.
        names: of hooks.
        shape: rows and positions of the tokens that will be run.
    """
    found: dict[str, Tensor] = {}
    keeping = {name: partial(found.__setitem__, name) for name in names}
    with interventions(model, keeping, shape):
        yield found


@contextmanager
def interventions(
    model: LanguageModel,
    changes: Mapping[str, Callable[[Tensor], Tensor | None]],
    shape: Sequence[int],
) -> Iterator[None]:
    """Change what passes some hooks, within the block.

    Args:
        model: whose hooks.
        changes: by hook name; each is given the tensor and returns what replaces it, or None to
            leave it.
        shape: rows and positions of the tokens that will be run. OPT's blocks join the two
            dimensions; ``changes`` see them apart.
    """

    def changed(change: Callable[[Tensor], Tensor | None]) -> Callable[..., Tensor | None]:
        def hook(tensor: Tensor, hook: Any) -> Tensor | None:  # noqa: ARG001  (the library names it)
            joined = tensor.ndim == 2 and len(tensor) == shape[0] * shape[1]
            replacement = change(tensor.unflatten(0, tuple(shape)) if joined else tensor)
            return None if replacement is None else replacement.reshape(tensor.shape)

        return hook

    if not changes:  # TransformerLens lists all its hooks, even to add none
        yield
        return
    with model.hooks(fwd_hooks=[(name, changed(change)) for name, change in changes.items()]):
        yield


@contextmanager
def mlp_interventions(
    model: LanguageModel,
    changes: Mapping[int, Callable[[Tensor, Tensor], Tensor]],
    shape: Sequence[int],
) -> Iterator[None]:
    """Change what some MLPs write, within the block.

    Args:
        model: whose MLPs.
        changes: by layer; each is given what the MLP reads and what it writes, and returns what is
            added to the residual stream instead.
        shape: rows and positions of the tokens that will be run.
    """
    with captured(model, [mlp_input(model, layer) for layer in changes], shape) as read:

        def changed(layer: int) -> Callable[[Tensor], Tensor]:
            return lambda mlp_out: changes[layer](read[mlp_input(model, layer)], mlp_out)

        with interventions(model, {mlp_output(layer): changed(layer) for layer in changes}, shape):
            yield


def run_blocks(
    model: LanguageModel,
    *,
    tokens: Int[Tensor, "batch position"] | None = None,
    residual: Float[Tensor, "batch position d_model"] | None = None,
    start: int = 0,
    stop: int | None = None,
    **arguments: Any,
) -> Float[Tensor, "batch position d_model"]:
    """Run some of a model's blocks, with its hooks, and the final norm.

    Args:
        model: whose blocks.
        tokens: what to run; give either these or ``residual``.
        residual: the residual stream before block ``start``.
        start: the first block that runs; the number of blocks runs the final norm alone.
        stop: the first block that does not run; None runs all from ``start`` on.
        arguments: for the Hugging Face model: masks, positions, a cache of keys and values.

    Returns:
        The residual stream after the final norm, for :func:`unembed`. It means nothing if ``stop``
        is given: such a run is made for the tensors that its hooks keep.

    Raises:
        UserError: there are more tokens in a row than the model has positions.
    """
    _check_length(model, tokens)
    blocks = list(model.blocks)
    if start == len(blocks):
        return model.ln_final(residual)
    skipped = [*range(start), *range(len(blocks) if stop is None else stop, len(blocks))]
    changes = {} if residual is None else {f"blocks.{start}.hook_resid_pre": lambda _: residual}
    given: Any = tokens if residual is None else residual
    try:
        for number in skipped:
            model.blocks[number] = _PassThrough(model.cfg.blocks_return_tuples)
        with interventions(model, changes, given.shape[:2]), fused_attention(model):
            output = model.original_model.base_model(
                input_ids=tokens, inputs_embeds=residual, **{"use_cache": False, **arguments}
            )
    finally:
        for number in skipped:
            model.blocks[number] = blocks[number]
    return output.last_hidden_state


def _check_length(model: LanguageModel, tokens: Tensor | None) -> None:
    """Refuse a text that is longer than the model has positions; many would read on wrongly."""
    limit = n_positions(model.original_model.config)
    if tokens is not None and limit is not None and tokens.shape[1] > limit:
        raise UserError(
            f"expected a text of at most the model's {limit} positions, found {tokens.shape[1]} "
            "tokens with BOS; shorten it"
        )


@contextmanager
def fused_attention(model: LanguageModel) -> Iterator[None]:
    """Let attention that no hook watches run as Hugging Face's own module, in one fused kernel.

    TransformerLens computes attention step by step, so that every step has a hook, which slows a
    forward pass (``benchmarks/caching.py`` compares it with Hugging Face's). Other attention than
    plain scaled dot products (biases by distance, capped scores, joint maps of queries, keys and
    values) stays with TransformerLens.
    """
    in_use = [name for name, point in model.hook_dict.items() if point.fwd_hooks]
    watched = {tuple(name.split(".")[1:3]) for name in in_use if name.startswith("blocks.")}
    blocks = {str(i): block for i, block in enumerate(model.blocks) if hasattr(block, "attn")}
    if not all(
        _is_plain(block.attn) and (number, "attn") not in watched
        for number, block in blocks.items()
    ):
        yield
        return
    config = model.original_model.config
    implementation = config._attn_implementation
    swapped = [
        (block.original_component, part)
        for number, block in blocks.items()
        for name, part in (("attn", block.attn), ("ln1", block.ln1))
        if (number, name) not in watched
    ]
    config._attn_implementation = "sdpa"
    try:
        for parent, part in swapped:
            setattr(parent, part.name, part.original_component)
        yield
    finally:
        config._attn_implementation = implementation
        for parent, part in swapped:
            setattr(parent, part.name, part)


def _is_plain(attention: Any) -> bool:
    """Whether an attention bridge wraps a module that computes the same with its own weights."""
    from transformer_lens.model_bridge.generalized_components import (
        PositionEmbeddingsAttentionBridge,
    )

    capped = (getattr(attention.config, "attn_scores_soft_cap", None) or 0) > 0
    return type(attention) is PositionEmbeddingsAttentionBridge and not capped


class _PassThrough(nn.Module):
    """Takes the place of a block that must not run."""

    def __init__(self, as_tuple: bool) -> None:
        super().__init__()
        self.as_tuple = as_tuple

    def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor | tuple[Tensor]:
        """Give back the input, in the form in which the family's blocks return it."""
        return (hidden_states,) if self.as_tuple else hidden_states


def unembed(
    model: LanguageModel,
    normalized: Float[Tensor, "... d_model"],
    tokens: Int[Tensor, " token"] | slice | None = None,
) -> Float[Tensor, "... token"]:
    """Logits from the residual stream after the final norm.

    Args:
        model: whose unembedding.
        normalized: what :func:`run_blocks` returns.
        tokens: compute the logits of these tokens only; None means all.
    """
    if tokens is None:
        logits = model.unembed(normalized)
    else:
        logits = normalized @ model.W_U[:, tokens]
        if (bias := logit_bias(model)) is not None:
            logits = logits + bias[tokens]
    cap = model.cfg.output_logits_soft_cap or 0
    return cap * torch.tanh(logits / cap) if cap > 0 else logits


def logit_bias(model: LanguageModel) -> Float[Tensor, " vocabulary"] | None:
    """The bias of the logits, which includes the final norm's; None if the model has neither."""
    return getattr(model, "b_U", None)
