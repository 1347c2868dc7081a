"""Steering moves a linear model as attribution says."""

from contextlib import contextmanager
from math import isnan

import pandas as pd
import pytest
import torch

from helpers_circuits import number_of
from transcoders.circuits.ablation import changes_when_scaled
from transcoders.circuits.steering import FACTORS, ablation_effects, rank_correlation, steering
from transcoders.circuits.verify import TotalAttributions
from transcoders.models import interventions, mlp_interventions


@contextmanager
def frozen(local, shape):
    """Make a model linear: norms, patterns and active features stay as they were on a prompt."""
    replacement, passed = local.replacement, local.passed
    model, first = replacement.model, replacement.first_position
    constants = {"ln_final.hook_scale": passed.final_scale[:, None]}
    for layer in range(replacement.n_layers):
        constants[f"blocks.{layer}.attn.hook_pattern"] = passed.patterns[layer]
        constants[f"blocks.{layer}.ln1.hook_scale"] = passed.attention_scale[layer, :, None]
        constants[f"blocks.{layer}.ln2.hook_scale"] = passed.mlp_scale[layer, :, None]
    hooks = {
        name: lambda found, value=value: value.expand_as(found).clone()
        for name, value in constants.items()
    }

    def mlp(layer):
        def change(mlp_in, mlp_out):
            fixed = local.mlp_out[layer] + local.error[layer] + local.bias[layer]
            if (transcoder := replacement.transcoders.get(layer)) is None:
                return fixed.expand_as(mlp_out).clone()
            active = transcoder.encode(passed.mlp.mlp_in[layer]) > 0
            active[:first] = False
            z = (mlp_in @ transcoder.W_enc + transcoder.b_enc) * active
            return z @ transcoder.W_dec + fixed

        return change

    mlps = {layer: mlp(layer) for layer in range(replacement.n_layers)}
    with interventions(model, hooks, shape), mlp_interventions(model, mlps, shape):
        yield


def test_a_linear_model_moves_exactly_as_predicted(mixed, target, nodes):
    totals = TotalAttributions(mixed, target)
    predicted = torch.tensor([number_of(totals, node) for node in nodes])
    changes = []
    for node in nodes:  # one at a time: what is frozen has one row
        with frozen(mixed, (1, mixed.n_tokens)):
            changes += changes_when_scaled(mixed, target, [node], -1)
    found, expected = torch.tensor(changes), -2 * predicted
    assert expected.abs().max() > 0.05
    scale = max(values.abs().max().item() for values in totals.values())
    assert (found - expected).abs().max() < 1e-4 * max(scale, 1)


def test_the_tables_have_every_node_and_factor(mixed, logits, nodes):
    totals = TotalAttributions(mixed, logits)
    table = steering(mixed, logits, totals, nodes)
    effects, attributions = ablation_effects(table), [number_of(totals, node) for node in nodes]
    assert effects["attribution"].tolist() == attributions
    removed = changes_when_scaled(mixed, logits, nodes, 0)
    assert effects["effect"].tolist() == [-change for change in removed]
    for factor in FACTORS:
        scaled = table[table["factor"] == factor]
        assert scaled["predicted"].tolist() == [(factor - 1) * each for each in attributions]
        assert scaled["change"].tolist() == changes_when_scaled(mixed, logits, nodes, factor)


def test_rank_correlation_is_of_ranks_and_needs_three_nodes():
    effects = pd.DataFrame({"attribution": [1.0, 2.0, 30.0], "effect": [0.1, 0.2, 0.3]})
    assert rank_correlation(effects) == pytest.approx(1.0)
    assert isnan(rank_correlation(effects.head(2)))
