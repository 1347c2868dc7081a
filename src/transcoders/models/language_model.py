"""A language model with its LayerNorms folded, and the tensors around its MLPs.

A dictionary of layer l reads what enters that layer's MLP after normalisation and imitates what
the MLP adds to the residual stream. Two exact rewritings of the weights, done once at loading, put
those two tensors at the border of the MLP module, where a plain forward hook sees them:

1. the weight and bias of the norm before the MLP move into the MLP's first linear maps, so that
   the MLP's input is the normalised residual itself;
2. where that norm is a LayerNorm, the MLP's output map is centred over the residual dimension.
   Every reader of the residual stream subtracts the mean, so nothing downstream can tell.

These are TransformerLens's ``blocks.l.ln2.hook_normalized`` and ``blocks.l.hook_mlp_out`` in
compatibility mode (the tests compare them), at the speed of the Hugging Face model.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from transcoders.checksums import check_sha256
from transcoders.errors import UserError
from transcoders.files import read_json

FETCH_AGAIN = "delete the folder and run snakemake to fetch the model"


class Architecture(NamedTuple):
    """Where one family of Hugging Face models keeps the parts that this project touches."""

    blocks: str
    final_norm: str
    norm_before_attention: str
    """Within a block, as are the following."""
    attention: str
    attention_output: str
    norm_before_mlp: str
    mlp_inputs: tuple[str, ...]
    """The linear maps that read the MLP's input: two in a gated MLP."""
    mlp_output: str


ARCHITECTURES = {
    "gpt2": Architecture(
        blocks="transformer.h",
        final_norm="transformer.ln_f",
        norm_before_attention="ln_1",
        attention="attn",
        attention_output="attn.c_proj",
        norm_before_mlp="ln_2",
        mlp_inputs=("mlp.c_fc",),
        mlp_output="mlp.c_proj",
    ),
    "gpt_neox": Architecture(
        blocks="gpt_neox.layers",
        final_norm="gpt_neox.final_layer_norm",
        norm_before_attention="input_layernorm",
        attention="attention",
        attention_output="attention.dense",
        norm_before_mlp="post_attention_layernorm",
        mlp_inputs=("mlp.dense_h_to_4h",),
        mlp_output="mlp.dense_4h_to_h",
    ),
    "llama": Architecture(
        blocks="model.layers",
        final_norm="model.norm",
        norm_before_attention="input_layernorm",
        attention="self_attn",
        attention_output="self_attn.o_proj",
        norm_before_mlp="post_attention_layernorm",
        mlp_inputs=("mlp.gate_proj", "mlp.up_proj"),
        mlp_output="mlp.down_proj",
    ),
}


class MLPActivations(NamedTuple):
    """What enters and leaves one MLP."""

    mlp_in: Float[Tensor, "batch position d_model"]
    mlp_out: Float[Tensor, "batch position d_model"]


@dataclass
class SitePass:
    """A forward pass of the whole model, kept so that it can be continued from after one layer."""

    activations: MLPActivations
    residual_after: Float[Tensor, "batch position d_model"]
    """The residual stream after the site's layer."""
    logits: Float[Tensor, "batch position vocabulary"]
    block_arguments: tuple[tuple[Any, ...], dict[str, Any]]
    """What every block is given besides the residual stream: masks, position embeddings."""


class LanguageModel:
    """A Hugging Face causal language model, rewritten as the module docstring says.

    Attributes:
        hf: the Hugging Face model, in evaluation mode, without gradients.
        architecture: where its parts are.
        blocks: its transformer blocks.
    """

    def __init__(self, hf: Any) -> None:
        """Take over and rewrite ``hf``, whose weights change in place.

        Raises:
            UserError: the model is of a family that :data:`ARCHITECTURES` does not list.
        """
        self.hf = hf.eval().requires_grad_(False)
        self.architecture = _architecture_of(hf)
        self.blocks: Any = hf.get_submodule(self.architecture.blocks)
        for block in self.blocks:
            fold_norm_and_centre(block, self.architecture)

    @classmethod
    def load(
        cls, folder: Path, *, n_layers: int | None = None, device: str = "cpu"
    ) -> "LanguageModel":
        """Load a model folder that ``fetch_model`` wrote.

        Args:
            folder: a Hugging Face folder.
            n_layers: keep only the first so many layers. Such a model has activations but no
                meaningful logits.
            device: ``cpu`` or ``cuda``.

        Raises:
            UserError: the folder or its weights are missing, unreadable or not those that were
                written.
        """
        check_model_files(folder)
        hf = load_hugging_face(folder)
        if n_layers is not None:
            truncate(hf, n_layers)
        return cls(hf.to(device))

    def mlp(self, layer: int) -> nn.Module:
        """The MLP of a layer: maps its (normalised) input to what it adds to the residual."""
        return self.blocks[layer].mlp

    @torch.inference_mode()
    def mlp_activations(
        self, tokens: Int[Tensor, "batch position"], layers: list[int]
    ) -> dict[int, MLPActivations]:
        """Inputs and outputs of the MLPs of ``layers``, without computing logits."""
        captured: dict[int, MLPActivations] = {}

        def keep(layer: int) -> Callable[..., None]:
            def hook(_: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
                captured[layer] = MLPActivations(arguments[0], output)

            return hook

        hooks = [self.mlp(layer).register_forward_hook(keep(layer)) for layer in layers]
        with removed_after(hooks):
            self.hf.base_model(input_ids=tokens, use_cache=False)
        return captured

    @torch.inference_mode()
    def run_through_site(self, tokens: Int[Tensor, "batch position"], layer: int) -> SitePass:
        """Run the whole model once and keep what :meth:`continue_with_mlp_out` needs."""
        kept: dict[str, Any] = {}

        def keep_mlp(_: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
            kept["activations"] = MLPActivations(arguments[0], output)

        def keep_block(
            _: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any], output: Any
        ) -> None:
            kept["residual_after"] = first_output(output)
            kept["block_arguments"] = (arguments[1:], keywords)

        hooks = [
            self.mlp(layer).register_forward_hook(keep_mlp),
            self.blocks[layer].register_forward_hook(keep_block, with_kwargs=True),
        ]
        with removed_after(hooks):
            logits = self.hf(input_ids=tokens, use_cache=False).logits
        return SitePass(logits=logits, **kept)

    @torch.inference_mode()
    def continue_with_mlp_out(
        self, site: SitePass, layer: int, mlp_out: Float[Tensor, "batch position d_model"]
    ) -> Float[Tensor, "batch position vocabulary"]:
        """Logits of the model with the output of one layer's MLP replaced.

        Only the layers after the site run. The replacement enters as a difference, so putting back
        the MLP's own output leaves every bit of the residual stream as it was.
        """
        residual = site.residual_after + (mlp_out - site.activations.mlp_out)
        arguments, keywords = site.block_arguments
        for block in self.blocks[layer + 1 :]:
            residual = first_output(block(residual, *arguments, **keywords))
        final_norm = self.hf.get_submodule(self.architecture.final_norm)
        return self.hf.get_output_embeddings()(final_norm(residual))


@contextmanager
def removed_after(hooks: Iterable[RemovableHandle]) -> Iterator[None]:
    """Remove hooks at the end of the block, however it ends."""
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def check_model_files(folder: Path, *, weights: bool = True) -> None:
    """Compare a model folder that ``fetch_model`` wrote with the hashes in its ``source.json``.

    Raises:
        UserError: a file is missing or was changed.
    """
    if not (folder / "source.json").exists():
        return
    for name, expected in read_json(folder / "source.json").get("files", {}).items():
        if weights or not name.endswith(".safetensors"):
            check_sha256(folder / name, expected, FETCH_AGAIN)


def load_hugging_face(folder: Path, *, remedy: str = FETCH_AGAIN) -> Any:
    """Load a Hugging Face causal language model from a folder, in fp32, without a network.

    Args:
        folder: with ``config.json`` and weights.
        remedy: what the user can do if it cannot be loaded, for the message.

    Raises:
        UserError: the folder is missing, unreadable or lacks weights, which transformers would
            replace by random ones.
    """
    from transformers import AutoModelForCausalLM

    if not (folder / "config.json").exists():
        raise UserError(f"{folder}: expected a model folder, found no config.json; {remedy}")
    try:
        hf, report = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, output_loading_info=True
        )
    except Exception as error:  # whatever a damaged file makes the libraries raise
        raise UserError(f"{folder}: the model could not be loaded ({error}); {remedy}") from error
    if report["missing_keys"]:
        missing = ", ".join(sorted(report["missing_keys"]))
        raise UserError(f"{folder}: the weights lack {missing}; {remedy}")
    return hf


def truncate(hf: Any, n_layers: int) -> None:
    """Keep the first layers of a Hugging Face model, in place. Its logits mean nothing then."""
    del hf.get_submodule(_architecture_of(hf).blocks)[n_layers:]
    hf.config.num_hidden_layers = n_layers


def _architecture_of(hf: Any) -> Architecture:
    family = hf.config.model_type
    if family not in ARCHITECTURES:
        raise UserError(
            f"model type {family!r} is not supported; expected one of {', '.join(ARCHITECTURES)} "
            "(add it to ARCHITECTURES in src/transcoders/models)"
        )
    return ARCHITECTURES[family]


@torch.no_grad()
def fold_norm_and_centre(block: nn.Module, architecture: Architecture) -> None:
    """Fold the norm before a block's MLP into it and centre the MLP's output, in place."""
    norm: Any = block.get_submodule(architecture.norm_before_mlp)
    norm_bias = getattr(norm, "bias", None)
    for name in architecture.mlp_inputs:
        linear: Any = block.get_submodule(name)
        weight = in_by_out(linear)  # a view: (d_model, d_mlp)
        if norm_bias is not None:
            linear.bias += norm_bias @ weight
        weight *= norm.weight[:, None]
    norm.weight.fill_(1.0)
    if norm_bias is not None:
        norm_bias.zero_()
    if isinstance(norm, nn.LayerNorm):
        output: Any = block.get_submodule(architecture.mlp_output)
        weight = in_by_out(output)  # (d_mlp, d_model)
        weight -= weight.mean(dim=1, keepdim=True)
        output.bias -= output.bias.mean()


def in_by_out(linear: Any) -> Float[Tensor, "input output"]:
    """A linear map's weight by input and output, as a view.

    GPT-2's Conv1D stores it so, nn.Linear the other way round.
    """
    return linear.weight.T if isinstance(linear, nn.Linear) else linear.weight


def first_output(output: Any) -> Tensor:
    """What a block returns: the residual stream, or a tuple that it heads, by library version."""
    return output[0] if isinstance(output, tuple) else output
