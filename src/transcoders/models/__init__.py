"""Language models: fetched as plain folders, and loaded with their LayerNorms folded."""

from transcoders.models.files import SYNTHETIC_VOCABULARY, fetch_model, load_tokenizer
from transcoders.models.language_model import (
    ARCHITECTURES,
    LanguageModel,
    MLPActivations,
    SitePass,
)

__all__ = [
    "ARCHITECTURES",
    "SYNTHETIC_VOCABULARY",
    "LanguageModel",
    "MLPActivations",
    "SitePass",
    "fetch_model",
    "load_tokenizer",
]
