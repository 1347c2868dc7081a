"""Tiny models with random weights, one for each family, for tests."""

from typing import Any

from transcoders.config import Model

SYNTHETIC_VOCABULARY = 256
"""Special tokens and words ``w0``, ``w1``, …; numbers come on top."""
SYNTHETIC_WIDTH_OF_HEAD = 16
PAIRS = ([f"{number:02d}" for number in range(100)], r"^\d\d")
DIGITS = ([str(digit) for digit in range(10)], r"^\d|(?<=^\d)\d|(?<=^\d\d)\d")
"""Two ways in which tokenizers write numbers of up to four digits: tokens, and what to cut out."""
WRITES_PAIRS = ("gpt2", "gpt_neox", "opt", "phi")


def make_synthetic(architecture: str, model: Model, seed: int) -> tuple[Any, Any]:
    """A random model small enough for tests, with weights large enough for its MLPs to matter."""
    import torch
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    words = [f"w{index}" for index in range(SYNTHETIC_VOCABULARY - 2)]
    numbers, piece = PAIRS if architecture in WRITES_PAIRS else DIGITS
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
        "pad_token_id": 1,  # the embedding of padding starts at 0, which BOS's must not
    }
    sizes |= _sizes_of_family(architecture, model.d_model, n_heads)
    config = AutoConfig.for_model(architecture, **sizes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        hf = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        _randomise_norms(hf)
    return hf, tokenizer


def _sizes_of_family(architecture: str, d_model: int, n_heads: int) -> dict[str, Any]:
    """What the configurations of some families want besides."""
    match architecture:
        case "gpt2":  # derives its MLP's width from d_model
            return {}
        case "opt":
            return {"ffn_dim": 4 * d_model, "word_embed_proj_dim": d_model}
        case "gpt_neox" | "phi":
            return {"intermediate_size": 4 * d_model}
    # Grouped queries, as in SmolLM2.
    grouped = {"intermediate_size": 4 * d_model, "num_key_value_heads": n_heads // 2}
    if architecture in ("qwen3", "gemma2", "gemma3_text"):
        grouped["head_dim"] = SYNTHETIC_WIDTH_OF_HEAD
    return grouped


def _randomise_norms(hf: Any) -> None:
    # Norms start as the identity, which would hide mistakes in folding them.
    import torch

    with torch.no_grad():
        for name, parameter in hf.named_parameters():
            if "norm" in name or ".ln_" in name:
                parameter.add_(torch.randn_like(parameter), alpha=0.3)
            elif name.endswith("bias"):
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
