"""Models of any size with random weights, for what only takes time."""

import tempfile
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from transcoders.models import LanguageModel, to_bridge


def random_model(config: Any, device: str = "cpu") -> LanguageModel:
    """A model of a Hugging Face configuration. Its tokenizer knows two tokens."""
    with torch.device(device):
        hf = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    words = Tokenizer(WordLevel({"<bos>": 0, "<unk>": 1}, unk_token="<unk>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<bos>")
    with tempfile.TemporaryDirectory() as folder:
        config.architectures = [type(hf).__name__]
        config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return to_bridge(hf, Path(folder), device=device)
