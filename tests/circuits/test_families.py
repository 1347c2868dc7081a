"""Circuits add up in every family of models, and one in which they would not is refused."""

import pytest
import torch
from transformers import AutoConfig

from helpers_circuits import assert_close, some_targets
from transcoders.circuits import verify
from transcoders.circuits.notation import NodeKind
from transcoders.circuits.replacement import ReplacementModel
from transcoders.circuits.vectors import contributions, pull_back
from transcoders.circuits.verify import completeness, unit_scales
from transcoders.errors import UserError
from transcoders.models import interventions
from transcoders.models.support import PROBE_TOKENS


def frozen_value(local, target):
    """The target in the frozen model, whose gradients are attributions over all paths."""
    stream = local.passed.before_attention[0]
    for layer in range(min(target.node.layer, local.replacement.n_layers - 1) + 1):
        stream = verify._through_layer(local, target, layer, stream, unit_scales(local, layer))
    return verify._read(target, stream)


@torch.no_grad()
def test_circuits_are_complete(of_family):
    for target in some_targets(of_family):
        found = completeness(of_family, target.vectors)
        assert found.error.item() < 1e-5
        size = found.magnitude.item()
        assert found.value.item() == pytest.approx(target.value, rel=1e-5, abs=1e-5 * size)
        value = frozen_value(of_family, target).item()
        assert value == pytest.approx(target.value, rel=1e-5, abs=1e-5 * size)


@torch.no_grad()
def test_pulled_back_vectors_read_the_contributions_they_were_pulled_from(of_family):
    """And those of heads of layer 0 read the embedding alone: no path goes on after these."""
    for target in some_targets(of_family):
        found = contributions(of_family, target.vectors)
        kinds = torch.tensor([kind.code for kind in NodeKind if kind.reads])
        is_read = torch.isin(found.columns.kind, kinds) & (found.values[0] != 0)
        column = is_read.nonzero()[:, 0]
        if not len(column):
            continue  # the first layer of a parallel block reads the embedding alone
        pulled = pull_back(of_family, target.vectors, found, torch.zeros_like(column), column)
        sums = completeness(of_family, pulled)
        assert sums.error.max() < 1e-5
        assert_close(sums.value, found.values[0, column])
        kind, layer = found.columns.kind[column], found.columns.layer[column]
        of_first_heads = (kind == NodeKind.HEAD.code) & (layer == 0)
        read = contributions(of_family, pulled)
        others = read.values[of_first_heads][:, read.columns.kind != NodeKind.EMBED.code]
        assert others.numel() and not others.any() and not read.bias[of_first_heads].any()


def test_attention_that_does_more_than_mix_values_is_refused(tiny_model, tiny_model_folder):
    family = AutoConfig.from_pretrained(tiny_model_folder).architectures[0]
    # Stands for a gate between the output map and the residual stream.
    gate = {"blocks.1.hook_attn_out": lambda written: 0.5 * written}
    message = rf"the attention of {family} does more than mix its values by its pattern"
    with (
        interventions(tiny_model, gate, (1, PROBE_TOKENS)),
        pytest.raises(UserError, match=message),
    ):
        ReplacementModel(tiny_model, {})
    ReplacementModel(tiny_model, {})
