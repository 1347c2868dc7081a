"""Contributions add up to what a vector reads, and pulled-back vectors read them again."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from helpers_circuits import active_units, outputs, plain, sees, some_targets, target_reader
from transcoders.circuits.notation import Node, NodeKind
from transcoders.circuits.replacement import ReplacementModel
from transcoders.circuits.vectors import FeatureVectors, contributions, feature_target, logit_target
from transcoders.circuits.verify import completeness
from transcoders.errors import UserError
from transcoders.models import to_bridge

# fp32: sums of a few hundred terms are off by about 1e-6 of the sum of their sizes.
ROUNDING = 1e-5


def joined(targets):
    """The vectors of several targets in one."""
    columns = zip(*(target.vectors for target in targets), strict=True)
    return FeatureVectors(*(torch.cat(parts) for parts in columns))


def node_of(columns, column, token):
    """What a column stands for, seen from a vector at a token."""
    code, layer, unit, source, _ = (int(part[column]) for part in columns)
    kind = list(NodeKind)[code]
    return Node(kind, layer, unit, token, source if kind == "head" else -1)


def test_contributions_are_vector_times_output_of_all_that_was_written_before(local):
    written = outputs(local)
    targets = some_targets(local)
    found = contributions(local, joined(targets))
    for target, values in zip(targets, found.values, strict=True):
        reader = target_reader(target)
        scale, counted = values.abs().max().item(), 0
        of_token = (found.columns.kind != 0) | (found.columns.source == target.node.token)
        assert not values[~of_token].any()
        for column in of_token.nonzero()[:, 0].tolist():
            node = node_of(found.columns, column, target.node.token)
            is_read = node in written and sees(local, reader, node)
            expected = (reader.vector @ written[node]).item() if is_read else 0.0
            # What is written later or elsewhere contributes nothing at all, not almost nothing.
            tolerance = ROUNDING * scale if is_read else 0.0
            assert values[column].item() == pytest.approx(expected, abs=tolerance, rel=0)
            counted += is_read
        assert counted == sum(sees(local, reader, node) for node in written)
    assert completeness(local, joined(targets)).error.max() < ROUNDING  # biases make up the rest


def test_a_logit_target_is_worth_the_weighted_logits(local):
    weights = {5: 1.0, 17: -1.0, 255: 0.25}
    logits = plain(local.replacement.model).hf(local.passed.tokens[None]).logits[0]
    for token in (0, 3, -1):
        target = logit_target(local, weights, token, name="mine")
        expected = sum(weight * logits[token, i].item() for i, weight in weights.items())
        assert target.value == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_a_sequential_gpt_neox_is_attributed_in_its_own_order(tiny_models, freeze):
    folder = tiny_models["gpt_neox"]
    hf = AutoModelForCausalLM.from_pretrained(folder, use_parallel_residual=False)
    local = freeze(to_bridge(hf, folder), "all layers")
    assert not local.replacement.is_parallel
    assert completeness(local, joined(some_targets(local))).error.max() < ROUNDING


def test_an_inactive_feature_is_refused_with_the_most_active_ones(mixed):
    best = active_units(mixed, 2, 5)
    inactive = next(unit for unit in range(64) if unit not in best)
    listed = rf"active: tc2\[{best[0]}\]@5 .*, tc2\[{best[1]}\]@5 "
    with pytest.raises(UserError, match=f"expected an active feature.*{listed}"):
        feature_target(mixed, 2, inactive, -3)


@pytest.mark.parametrize("kind", ["mlp_out_sae", "skip_transcoder"])
def test_dictionaries_that_are_no_plain_transcoder_are_refused(mixed, random_dictionary, kind):
    with pytest.raises(UserError, match="expected a transcoder at layer 1, found a"):
        ReplacementModel(mixed.replacement.model, {1: random_dictionary(kind)})
