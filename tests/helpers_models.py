"""Tiny models of many families, made on the spot."""

from pathlib import Path

from transcoders.config import Model, SyntheticModel
from transcoders.models import fetch_model

FAMILIES = (
    "gpt2", "gpt_neox", "llama", "mistral", "qwen2", "qwen3", "opt", "phi", "gemma2", "gemma3_text",
)  # fmt: skip
"""The families that are promised to work."""
TINY_LAYERS = 3
TINY_WIDTH = 32


def make_tiny_model(architecture: str, folder: Path) -> Path:
    """Write a tiny model of one family with random weights."""
    model = Model(
        source=SyntheticModel(type="synthetic", architecture=architecture, license="none"),
        n_layers=TINY_LAYERS,
        d_model=TINY_WIDTH,
        bos_token="<|endoftext|>",
    )
    fetch_model(model, folder, seed=0)
    return folder
