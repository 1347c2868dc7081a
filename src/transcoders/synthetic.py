"""Tiny models and texts for tests and for the smoke scale: random weights, random words.

Words are ``w0``, ``w1``, … in both. Everything is a function of the seed.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from transcoders.config import Model, SyntheticCorpus

SYNTHETIC_VOCABULARY = 256
"""Special tokens and words; numbers come on top."""
N_WORDS = SYNTHETIC_VOCABULARY - 2
WIDTH_OF_HEAD = 16
PAIRS = ([f"{number:02d}" for number in range(100)], r"^\d\d")
DIGITS = ([str(digit) for digit in range(10)], r"^\d|(?<=^\d)\d|(?<=^\d\d)\d")
"""Two ways in which tokenizers write numbers of up to four digits: tokens, and what to cut out."""


def make_texts(source: SyntheticCorpus, seed: int) -> Iterator[str]:
    """Texts of a Markov chain in which each word is followed by one of four others."""
    random = np.random.default_rng(seed)
    successors = random.integers(N_WORDS, size=(N_WORDS, 4))
    for _ in range(source.documents):
        word, words = int(random.integers(N_WORDS)), []
        for _ in range(source.words_per_document):
            word = int(successors[word, random.integers(4)])
            words.append(f"w{word}")
        yield " ".join(words)


def make_model(architecture: str, model: Model, seed: int) -> tuple[Any, Any]:
    """A random Hugging Face model of some family, and its tokenizer.

    Its weights are large enough for its MLPs to matter.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer = _make_tokenizer(architecture, model.bos_token)
    sizes = {
        "hidden_size": model.d_model,
        "num_hidden_layers": model.n_layers,
        "num_attention_heads": model.d_model // WIDTH_OF_HEAD,
        "max_position_embeddings": 256,
        "vocab_size": len(tokenizer),
        "initializer_range": 0.2,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "pad_token_id": 1,  # the embedding of padding starts at 0, which BOS's must not
    }
    sizes |= _sizes_of_family(architecture, model.d_model)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        config = AutoConfig.for_model(architecture, **sizes)
        hf = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        # Norms start as the identity, which would hide mistakes in folding them.
        for name, parameter in hf.named_parameters():
            if "norm" in name or ".ln_" in name:
                parameter.add_(torch.randn_like(parameter), alpha=0.3)
            elif name.endswith("bias"):
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return hf, tokenizer


def _make_tokenizer(architecture: str, bos_token: str) -> Any:
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    writes_pairs = architecture in ("gpt2", "gpt_neox", "opt", "phi")
    numbers, piece = PAIRS if writes_pairs else DIGITS
    tokens = [bos_token, "<unk>", *(f"w{index}" for index in range(N_WORDS)), *numbers]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    word_level = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    word_level.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex(piece), "isolated")]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=word_level, bos_token=bos_token, unk_token="<unk>"
    )


def _sizes_of_family(architecture: str, d_model: int) -> dict[str, int]:
    """Settings that the configurations of some families need besides."""
    match architecture:
        case "gpt2":  # derives its MLP's width from d_model
            return {}
        case "opt":
            return {"ffn_dim": 4 * d_model, "word_embed_proj_dim": d_model}
        case "gpt_neox" | "phi":
            return {"intermediate_size": 4 * d_model}
        case "qwen3" | "gemma2" | "gemma3_text":
            head = {"head_dim": WIDTH_OF_HEAD}
        case _:
            head = {}
    grouped = d_model // WIDTH_OF_HEAD // 2  # grouped queries, as in SmolLM2
    return {"intermediate_size": 4 * d_model, "num_key_value_heads": grouped, **head}
