"""Steering moves a linear model as attribution says."""

from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from math import isnan

import pandas as pd
import pytest
import torch
from torch import Tensor

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
    hooks: dict[str, Callable[[Tensor], Tensor]] = {}

    def constant(value):
        return lambda found: value.expand_as(found).clone()

    hooks["ln_final.hook_scale"] = constant(passed.final_scale[:, None])
    for layer in range(replacement.n_layers):
        hooks[f"blocks.{layer}.attn.hook_pattern"] = constant(passed.patterns[layer])
        hooks[f"blocks.{layer}.ln1.hook_scale"] = constant(passed.attention_scale[layer, :, None])
        hooks[f"blocks.{layer}.ln2.hook_scale"] = constant(passed.mlp_scale[layer, :, None])

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

    with ExitStack() as stack:
        stack.enter_context(interventions(model, hooks, shape))
        layers = range(replacement.n_layers)
        stack.enter_context(mlp_interventions(model, {i: mlp(i) for i in layers}, shape))
        yield


@pytest.mark.parametrize("factor", [2, -1])
def test_a_linear_model_moves_exactly_as_predicted(mixed, target, nodes, factor):
    totals = TotalAttributions(mixed, target)
    predicted = torch.tensor([number_of(totals, node) for node in nodes])
    changes = []
    for node in nodes:  # one at a time: what is frozen has one row
        with frozen(mixed, (1, mixed.n_tokens)):
            changes += changes_when_scaled(mixed, target, [node], factor)
    found, expected = torch.tensor(changes), (factor - 1) * predicted
    assert expected.abs().max() > 0.05
    scale = max(values.abs().max().item() for values in totals.values())
    assert (found - expected).abs().max() < 1e-4 * max(scale, 1)


def test_the_tables_have_every_node_and_factor(mixed, logits, nodes):
    totals = TotalAttributions(mixed, logits)
    table = steering(mixed, logits, totals, nodes)
    effects = ablation_effects(table)
    assert list(table) == ["node", "kind", "factor", "predicted", "change"]
    assert table["factor"].tolist() == [f for f in FACTORS for _ in nodes]
    _, doubled, turned = (table[table["factor"] == factor] for factor in FACTORS)
    assert effects["attribution"].tolist() == [number_of(totals, node) for node in nodes]
    removed = changes_when_scaled(mixed, logits, nodes, 0)
    assert effects["effect"].tolist() == [-change for change in removed]
    assert doubled["predicted"].tolist() == effects["attribution"].tolist()
    assert turned["change"].tolist() == changes_when_scaled(mixed, logits, nodes, -1)


def test_rank_correlation_is_of_ranks_and_needs_three_nodes():
    effects = pd.DataFrame({"attribution": [1.0, 2.0, 30.0], "effect": [0.1, 0.2, 0.3]})
    assert rank_correlation(effects) == pytest.approx(1.0)
    assert isnan(rank_correlation(effects.head(2)))
