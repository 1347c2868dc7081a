"""A model folder becomes a TransformerLens model."""

import sys
import textwrap
from pathlib import Path
from typing import Any

import torch

from transcoders.checksums import check_sha256
from transcoders.errors import UserError
from transcoders.files import read_json
from transcoders.models.checks import check_files, check_tensors, follows_its_file, n_tokens
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

    tokenizer, called = read_tokenizer(folder), Path(hf.name_or_path or folder)
    try:
        model = TransformerBridge.boot_transformers(
            str(folder), hf_model=hf.eval(), tokenizer=tokenizer, device=device, dtype=torch.float32
        )
    except (ValueError, NotImplementedError, RuntimeError) as error:
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise unsupported(hf.config, called, f"TransformerLens says: {reason}") from None
    if lacking := missing_part(model):
        raise unsupported(hf.config, called, lacking)
    model.enable_compatibility_mode(disable_warnings=True, center_unembed=False)
    model.requires_grad_(False)
    model.cfg.n_tokens = n_tokens(tokenizer)
    broken, model.cfg.blocks_return_tuples = probe(model)
    if broken:
        raise unsupported(hf.config, called, broken)
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
        UserError: the folder is missing or unreadable, its tensors are not those of its model, or
            the model is not a language model of this kind.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    check_files(folder, remedy)
    options = {"local_files_only": True, "trust_remote_code": False}
    try:
        config = AutoConfig.from_pretrained(folder, **options)
        if type(config) not in AutoModelForCausalLM._model_mapping:
            raise unsupported(config, folder, "it does not predict next tokens")
        if config.get_text_config() is not config:
            raise unsupported(config, folder, "it reads more than text")
        hf, report = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, output_loading_info=True,
            ignore_mismatched_sizes=True, **options,
        )  # fmt: skip
    except UserError:
        raise
    except Exception as error:  # whatever a damaged file makes the libraries raise
        raise _not_loaded(folder, "model", error, remedy) from error
    check_tensors(report, folder, remedy)
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

    Where ``tokenizer.json`` and the class that the folder names differ, the file is used.

    Raises:
        UserError: it is missing or unreadable; the message ends with ``remedy``.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    options = {"local_files_only": True, "trust_remote_code": False}
    file = folder / "tokenizer.json"
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=gguf_file, **options)
        if not file.exists() or not tokenizer.is_fast or follows_its_file(tokenizer, file):
            return tokenizer
        # transformers builds the tokenizer of the class that tokenizer_config.json names, and keeps
        # only the vocabulary of the file.
        name = type(tokenizer).__name__
        print(f"{file}: {name} tokenizes text differently; the file is used", file=sys.stderr)
        return PreTrainedTokenizerFast.from_pretrained(folder, **options)
    except Exception as error:  # whatever a damaged file makes the libraries raise
        raise _not_loaded(folder, "tokenizer", error, remedy) from error


def _not_loaded(folder: Path, what: str, error: Exception, remedy: str) -> UserError:
    reason = textwrap.shorten(str(error), 200, placeholder=" …") or type(error).__name__
    return UserError(f"{folder}: the {what} could not be loaded ({reason}); {remedy}")
