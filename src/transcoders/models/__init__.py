"""Language models: fetched as plain folders, loaded and run through TransformerLens."""

from transcoders.models.checks import check_context as check_context
from transcoders.models.fetching import check_model_folder as check_model_folder
from transcoders.models.fetching import fetch_model as fetch_model
from transcoders.models.forward import LanguageModel as LanguageModel
from transcoders.models.forward import MLPActivations as MLPActivations
from transcoders.models.forward import captured as captured
from transcoders.models.forward import interventions as interventions
from transcoders.models.forward import logit_bias as logit_bias
from transcoders.models.forward import mlp_activations as mlp_activations
from transcoders.models.forward import mlp_input as mlp_input
from transcoders.models.forward import mlp_interventions as mlp_interventions
from transcoders.models.forward import mlp_output as mlp_output
from transcoders.models.forward import run_blocks as run_blocks
from transcoders.models.forward import unembed as unembed
from transcoders.models.loading import load_model as load_model
from transcoders.models.loading import load_tokenizer as load_tokenizer
from transcoders.models.loading import to_bridge as to_bridge
from transcoders.models.passes import SitePass as SitePass
from transcoders.models.passes import continue_with_mlp_out as continue_with_mlp_out
from transcoders.models.passes import keeps_patterns as keeps_patterns
from transcoders.models.passes import logits_after as logits_after
from transcoders.models.passes import mlp_out_for as mlp_out_for
from transcoders.models.passes import run_through_site as run_through_site
from transcoders.models.predictions import Predictions as Predictions
