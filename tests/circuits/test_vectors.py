"""Contributions add up to what a vector reads, and pulled-back vectors read them again."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from helpers_circuits import (
    MIXES,
    Make,
    active_units,
    make_circuit,
    outputs,
    plain,
    prompt,
    sees,
    some_targets,
    target_reader,
)
from transcoders.circuits.notation import Node, NodeKind
from transcoders.circuits.replacement import LocalReplacementModel, ReplacementModel
from transcoders.circuits.vectors import (
    Columns,
    FeatureVectors,
    Target,
    contributions,
    feature_target,
    logit_target,
)
from transcoders.circuits.verify import completeness
from transcoders.config import Kind
from transcoders.dictionaries import SparseDictionary
from transcoders.errors import UserError
from transcoders.models import to_bridge

# fp32: sums of a few hundred terms are off by about 1e-6 of the sum of their sizes.
ROUNDING = 1e-5


def joined(targets: list[Target]) -> FeatureVectors:
    """The vectors of several targets in one."""
    columns = zip(*(target.vectors for target in targets), strict=True)
    return FeatureVectors(*(torch.cat(parts) for parts in columns))


def node_of(columns: Columns, column: int, token: int) -> Node:
    """What a column stands for, seen from a vector at a token."""
    code, layer, unit, source, _ = (int(part[column]) for part in columns)
    kind = list(NodeKind)[code]
    return Node(kind, layer, unit, token, source if kind == "head" else -1)


def test_contributions_add_up_to_what_targets_read(local: LocalReplacementModel) -> None:
    assert completeness(local, joined(some_targets(local))).error.max() < ROUNDING


def test_contributions_are_vector_times_output_of_all_that_was_written_before(
    local: LocalReplacementModel,
) -> None:
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


def test_a_logit_target_is_worth_the_weighted_logits(local: LocalReplacementModel) -> None:
    weights = {5: 1.0, 17: -1.0, 255: 0.25}
    logits = plain(local.replacement.model).hf(local.passed.tokens[None]).logits[0]
    for token in (0, 3, -1):
        target = logit_target(local, weights, token, name="mine")
        expected = sum(weight * logits[token, i].item() for i, weight in weights.items())
        assert target.value == pytest.approx(expected, rel=1e-4, abs=1e-4)
        assert (target.name, target.logits) == ("mine", weights)
        found = completeness(local, target.vectors)
        assert found.value.item() == pytest.approx(target.value, rel=1e-4, abs=1e-4)


def test_transcoders_that_are_the_mlps_leave_no_error(
    tiny_models: dict[str, Path], random_tokens: Callable[..., Tensor]
) -> None:
    # A ReLU MLP is a transcoder itself, of the input that its own norm's weight is folded into.
    folder = tiny_models["gpt2"]
    hf = AutoModelForCausalLM.from_pretrained(folder, activation_function="relu")
    hf.requires_grad_(False)
    transcoders = {
        layer: SparseDictionary(
            "transcoder",
            W_enc=block.ln_2.weight[:, None] * block.mlp.c_fc.weight,
            b_enc=block.ln_2.bias @ block.mlp.c_fc.weight + block.mlp.c_fc.bias,
            W_dec=block.mlp.c_proj.weight.clone(),
            b_dec=block.mlp.c_proj.bias.clone(),
        )
        for layer, block in enumerate(hf.transformer.h)
    }
    for t in transcoders.values():  # nothing reads the mean of what is written
        t.W_dec -= t.W_dec.mean(dim=1, keepdim=True)
        t.b_dec -= t.b_dec.mean()
    model = to_bridge(hf, folder)
    local = ReplacementModel(model, transcoders).freeze(prompt(random_tokens))
    assert local.error.abs().max() < ROUNDING * local.passed.mlp.mlp_out.abs().max()
    target = logit_target(local, {7: 1.0}, -1, name="one")
    found = contributions(local, target.vectors)
    without_errors = found.values[found.columns.kind[None] != NodeKind.ERROR.code].sum()
    assert (without_errors + found.bias[0]).item() == pytest.approx(target.value, rel=1e-4)


def test_a_sequential_gpt_neox_is_attributed_in_its_own_order(
    tiny_models: dict[str, Path], random_dictionary: Make, random_tokens: Callable[..., Tensor]
) -> None:
    folder = tiny_models["gpt_neox"]
    hf = AutoModelForCausalLM.from_pretrained(folder, use_parallel_residual=False)
    mix = MIXES["all layers"]
    replacement = make_circuit(to_bridge(hf, folder), random_dictionary, mix, first=1)
    local = replacement.freeze(prompt(random_tokens))
    assert not replacement.is_parallel
    assert completeness(local, joined(some_targets(local))).error.max() < ROUNDING


def test_an_inactive_feature_is_refused_with_the_most_active_ones(
    mixed: LocalReplacementModel,
) -> None:
    best = active_units(mixed, 2, 5)
    inactive = next(unit for unit in range(64) if unit not in best)
    with pytest.raises(UserError, match="expected an active feature") as refused:
        feature_target(mixed, 2, inactive, -3)
    listed = str(refused.value).partition("active: ")[2].split(", ")
    names = [entry.split(" ")[0] for entry in listed]
    assert names == [f"tc2[{unit}]@5" for unit in best[:10]]
    feature_target(mixed, 2, best[0], 5)


def test_a_prompt_longer_than_the_context_is_refused(gpt2_replacement: ReplacementModel) -> None:
    with pytest.raises(UserError, match="257 tokens, expected at most 256"):
        gpt2_replacement.freeze(torch.zeros(257, dtype=torch.long))


@pytest.mark.parametrize("kind", ["mlp_out_sae", "mlp_in_sae", "skip_transcoder"])
def test_dictionaries_that_are_no_plain_transcoder_are_refused(
    gpt2_replacement: ReplacementModel, random_dictionary: Make, kind: Kind
) -> None:
    with pytest.raises(UserError, match="expected a transcoder at layer 1, found a"):
        ReplacementModel(gpt2_replacement.model, {1: random_dictionary(kind)})
