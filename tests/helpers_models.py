"""Tiny models of many families, made on the spot."""

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from transcoders.config import Model
from transcoders.models import fetch_model

FAMILIES = (
    "gpt2", "gpt_neox", "llama", "mistral", "qwen2", "qwen3", "opt", "phi", "gemma2", "gemma3_text",
)  # fmt: skip
"""The families that are promised to work."""
TINY_LAYERS = 3
TINY_WIDTH = 32


def tiny_section(changes=None, **source):
    """A tiny model as a scale file describes it: its source, and ``changes`` to its other keys."""
    sizes = {"n_layers": TINY_LAYERS, "d_model": TINY_WIDTH, "bos_token": "<|endoftext|>"}
    given = {"source": {"license": "none", **source}, **sizes, **(changes or {})}
    return Model.model_validate(given)


def make_tiny_model(architecture, folder, *, seed=0):
    """Write a tiny model of one family with random weights."""
    fetch_model(tiny_section(type="synthetic", architecture=architecture), folder, seed=seed)
    return folder


def byte_tokenizer(**special):
    """One token for each byte, and special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made, **special)
