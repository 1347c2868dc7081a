"""A model folder becomes a TransformerLens model."""

from pathlib import Path
from typing import Any

import torch

from transcoders.checksums import check_sha256
from transcoders.errors import UserError
from transcoders.files import read_json
from transcoders.models.forward import LanguageModel
from transcoders.models.support import missing_part, probe, unsupported

FETCH_AGAIN = "delete the folder and run snakemake to fetch the model"


def load_model(folder: Path, *, device: str = "cpu") -> LanguageModel:
    """Load a model folder that ``fetch_model`` wrote, or any folder in Hugging Face's layout.

    Returns:
        A ``TransformerBridge`` in compatibility mode, in float32, without gradients. The
        unembedding is not centred, so logits are those of the Hugging Face model.

    Raises:
        UserError: the folder or its weights are missing, unreadable or were changed, or the model
            is of a family that cannot be treated exactly.
    """
    check_model_files(folder)
    return to_bridge(load_hugging_face(folder).to(device), folder, device=device)


def to_bridge(hf: Any, folder: Path, *, device: str = "cpu") -> LanguageModel:
    """Hand a Hugging Face model over to TransformerLens, which rewrites its weights in place.

    Args:
        hf: the model.
        folder: its ``config.json`` and tokenizer.
        device: where the model is.

    Raises:
        UserError: the model is of a family that cannot be treated exactly.
    """
    from transformer_lens.model_bridge import TransformerBridge

    try:
        model = TransformerBridge.boot_transformers(
            str(folder),
            hf_model=hf.eval(),
            tokenizer=read_tokenizer(folder),
            device=device,
            dtype=torch.float32,
        )
    except (ValueError, NotImplementedError, RuntimeError) as error:
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise unsupported(hf, folder, f"TransformerLens says: {reason}") from None
    if lacking := missing_part(model):
        raise unsupported(hf, folder, lacking)
    model.enable_compatibility_mode(disable_warnings=True, center_unembed=False)
    model.requires_grad_(False)
    broken, model.cfg.blocks_return_tuples = probe(model)
    if broken:
        raise unsupported(hf, folder, broken)
    return model


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


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a model folder, without a network.

    Raises:
        UserError: it is missing, unreadable or not the one that was written.
    """
    check_model_files(folder, weights=False)
    return read_tokenizer(folder)


def read_tokenizer(folder: Path, *, gguf_file: str | None = None, remedy: str = FETCH_AGAIN) -> Any:
    """The tokenizer of a folder, or of a GGUF file in it, whose hashes need no check.

    Raises:
        UserError: it is missing or unreadable; the message ends with ``remedy``.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, gguf_file=gguf_file)
    except Exception as error:  # whatever a damaged file makes the libraries raise
        raise UserError(
            f"{folder}: the tokenizer could not be loaded ({error}); {remedy}"
        ) from error
