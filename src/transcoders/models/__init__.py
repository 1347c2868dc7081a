"""Language models: fetched as plain folders, loaded and run through TransformerLens."""

from transcoders.models.checks import check_context
from transcoders.models.fetching import check_model_folder, fetch_model
from transcoders.models.forward import (
    LanguageModel,
    MLPActivations,
    captured,
    interventions,
    logit_bias,
    mlp_activations,
    mlp_input,
    mlp_interventions,
    mlp_output,
    run_blocks,
    unembed,
)
from transcoders.models.loading import load_model, load_tokenizer, to_bridge
from transcoders.models.passes import (
    SitePass,
    continue_with_mlp_out,
    keeps_patterns,
    logits_after,
    mlp_out_for,
    run_through_site,
)
from transcoders.models.predictions import Predictions
from transcoders.synthetic import SYNTHETIC_VOCABULARY

__all__ = [
    "SYNTHETIC_VOCABULARY", "LanguageModel", "MLPActivations", "Predictions", "SitePass",
    "captured", "check_context", "check_model_folder", "continue_with_mlp_out", "fetch_model",
    "interventions", "keeps_patterns", "load_model", "load_tokenizer", "logit_bias",
    "logits_after", "mlp_activations", "mlp_input", "mlp_interventions", "mlp_out_for",
    "mlp_output", "run_blocks", "run_through_site", "to_bridge", "unembed",
]  # fmt: skip
