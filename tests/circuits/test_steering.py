"""Steering moves a linear model as attribution says."""

from collections.abc import Callable
from contextlib import ExitStack, contextmanager

import pytest
import torch
from torch import Tensor

from transcoders.circuits.ablation import ablation_effects, changes_when_scaled
from transcoders.circuits.steering import FACTORS, steering
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
    predicted = torch.tensor([totals[n.kind, n.layer][n.place].item() for n in nodes])
    changes = []
    for node in nodes:  # one at a time: what is frozen has one row
        with frozen(mixed, (1, mixed.n_tokens)):
            changes += changes_when_scaled(mixed, target, [node], factor)
    found, expected = torch.tensor(changes), (factor - 1) * predicted
    assert expected.abs().max() > 0.05
    scale = max(values.abs().max().item() for values in totals.values())
    assert (found - expected).abs().max() < 1e-4 * max(scale, 1)


def test_the_table_has_every_node_and_factor_and_agrees_with_ablation(mixed, target, nodes):
    effects = ablation_effects(mixed, target, TotalAttributions(mixed, target), nodes)
    table = steering(mixed, target, nodes, effects)
    assert list(table) == ["node", "kind", "factor", "predicted", "change"]
    assert table["factor"].tolist() == [f for f in FACTORS for _ in nodes]
    removed, doubled, turned = (table[table["factor"] == factor] for factor in FACTORS)
    assert removed["change"].tolist() == (-effects["effect"]).tolist()
    assert removed["predicted"].tolist() == (-effects["attribution"]).tolist()
    assert doubled["predicted"].tolist() == effects["attribution"].tolist()
    assert turned["change"].tolist() == changes_when_scaled(mixed, target, nodes, -1)
