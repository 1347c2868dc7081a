"""Ablating in the real model, and keeping parts of it, is what hooks written by hand do."""

from contextlib import ExitStack
from math import isnan
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers_circuits import (
    hooks_of_ours,
    number_of,
    outputs,
    plain,
    some_targets,
    watched,
    without_weight,
)
from transcoders.circuits import ablation
from transcoders.circuits.ablation import BATCH, ablation_effects, rank_correlation, target_values
from transcoders.circuits.faithfulness import (
    faithfulness,
    parts_by_attribution,
    replaceable_parts,
)
from transcoders.circuits.notation import Node
from transcoders.circuits.vectors import logit_target
from transcoders.circuits.verify import TotalAttributions


@torch.no_grad()
def value_by_hand(local, target, hooks):
    """The target in the plain model with some modules' outputs changed."""
    hf, blocks, _ = plain(local.replacement.model)
    norms = [block.norm_2 for block in blocks]
    with ExitStack() as hooked, watched(norms) as seen:
        for module, hook in hooks.items():
            hooked.enter_context(module.register_forward_hook(hook))
        logits = hf(local.passed.tokens[None], use_cache=False).logits[0, target.node.token]
    if target.node.kind == "feature":
        norm = norms[target.node.layer]
        read = without_weight(norm, seen[norm][0][0, target.node.token])
        z = local.replacement.transcoders[target.node.layer].encode(read)
        return z[target.node.unit].item()
    return sum(weight * logits[i].item() for i, weight in target.logits.items())


def writer(local, node):
    """The module in whose output a node's is a part."""
    blocks = plain(local.replacement.model).blocks
    return blocks[node.layer].attention_out if node.kind == "head" else blocks[node.layer].mlp


def test_effects_are_those_of_hooks_written_by_hand(mixed, target, nodes):
    written = outputs(mixed)
    assert len(nodes) > BATCH  # more than are run at a time
    effects = ablation_effects(mixed, target, TotalAttributions(mixed, target), nodes)
    whole = value_by_hand(mixed, target, {})
    for node, effect in zip(nodes, effects["effect"], strict=True):

        def without(_, __, output, node=node):
            output = output.clone()
            output[0, node.token] -= written[node]
            return output

        value = value_by_hand(mixed, target, {writer(mixed, node): without})
        assert effect == pytest.approx(whole - value, rel=1e-3, abs=1e-4)
    assert effects["effect"].abs().max() > 0.1
    grown = effects.assign(effect=effects["attribution"] ** 3)
    assert rank_correlation(grown) == pytest.approx(1.0)
    assert isnan(rank_correlation(grown.head(2)))
    assert hooks_of_ours(mixed.replacement.model) == []


def test_a_long_prompt_is_ablated_in_smaller_batches(mixed, logits, nodes, monkeypatch):
    totals = TotalAttributions(mixed, logits)
    expected = ablation_effects(mixed, logits, totals, nodes)
    n_tokens, rows = len(mixed.passed.tokens), []

    def counted(replacement, target, tokens):
        rows.append(len(tokens))
        return target_values(replacement, target, tokens)

    monkeypatch.setattr(ablation, "target_values", counted)
    monkeypatch.setattr(ablation, "BATCH_TOKENS", 3 * n_tokens)
    found = ablation_effects(mixed, logits, totals, nodes)
    assert (max(rows), sum(rows)) == (3, len(nodes) + 1)
    assert found["effect"].tolist() == pytest.approx(expected["effect"], rel=1e-3, abs=1e-4)


@torch.no_grad()
def plain_means(local, rows):
    """Means of the plain model's own tensors: heads with the bias of their values."""
    replacement, first = local.replacement, local.replacement.first_position
    hf, blocks, _ = plain(replacement.model)
    with watched([module for b in blocks for module in (b.attention_out, b.mlp, b.norm_2)]) as seen:
        hf(rows)
    values = {}
    for layer, block in enumerate(blocks):
        values["head", layer] = seen[block.attention_out][0].unflatten(2, (replacement.n_heads, -1))
        values["mlp", layer] = seen[block.mlp][1]
        if (transcoder := replacement.transcoders.get(layer)) is not None:
            read = without_weight(block.norm_2, seen[block.norm_2][0])
            values["feature", layer] = transcoder.encode(read)
    return {place: value[:, first:].mean(dim=(0, 1)) for place, value in values.items()}


def mean_hooks(local, rows, nodes):
    """Hooks that put means from the first position on, and leave ``nodes`` as they are."""
    replacement, means = local.replacement, plain_means(local, rows)
    first = replacement.first_position
    hooks: dict[torch.nn.Module, Any] = {}
    read: dict[int, Tensor] = {}

    def on_norm(layer):
        def hook(norm, arguments, _):
            read[layer] = without_weight(norm, arguments[0][0])

        return hook

    def on_mlp(layer):
        def hook(_, __, output):
            output = output.clone()
            real = output[0].clone()
            output[0, first:] = means["mlp", layer]
            for node in nodes:
                if node.kind == "mlp" and node.layer == layer:
                    output[0, node.token] = real[node.token]
                if node.kind == "feature" and node.layer == layer:
                    transcoder = replacement.transcoders[layer]
                    z = transcoder.encode(read[layer][node.token])[node.unit]
                    more = z - means["feature", layer][node.unit]
                    output[0, node.token] += more * transcoder.W_dec[node.unit]
            return output

        return hook

    def on_attention(layer):
        def hook(module, arguments, _):
            x = arguments[0].clone().unflatten(2, (replacement.n_heads, -1))
            real = x.clone()
            x[0, first:] = means["head", layer]
            for node in nodes:
                if node.kind == "head" and node.layer == layer:
                    x[0, node.token, node.unit] = real[0, node.token, node.unit]
            return module.forward(x.flatten(2))

        return hook

    for layer, block in enumerate(plain(replacement.model).blocks):
        hooks[block.attention_out] = on_attention(layer)
        hooks[block.norm_2] = on_norm(layer)
        hooks[block.mlp] = on_mlp(layer)
    return hooks


def test_faithfulness_is_the_share_of_the_target_between_nothing_and_everything(
    mixed, means, text, logits
):
    ranked = parts_by_attribution(TotalAttributions(mixed, logits), 20)
    curve = faithfulness(mixed, logits, ranked, means, [0, 1, 5, 20])
    assert curve["n_nodes"].tolist() == [0, 1, 5, 20]
    whole = value_by_hand(mixed, logits, {})
    empty = value_by_hand(mixed, logits, mean_hooks(mixed, text, []))
    for size, found in zip(curve["n_nodes"], curve["faithfulness"], strict=True):
        value = value_by_hand(mixed, logits, mean_hooks(mixed, text, ranked[:size]))
        assert found == pytest.approx((value - empty) / (whole - empty), rel=1e-3, abs=1e-4)


def test_parts_count_heads_once_and_only_what_can_be_replaced(mixed, means, logits):
    ranked = [
        Node("head", 1, 0, 7, 2),
        Node("error", 0, -1, 7),
        Node("head", 1, 0, 7, 5),
        Node("embed", -1, -1, 7),
        Node("mlp", 1, -1, 7),
        Node("bias", -1, -1, 7),
    ]
    assert replaceable_parts(ranked) == [Node("head", 1, 0, 7), Node("mlp", 1, -1, 7)]
    curve = faithfulness(mixed, logits, ranked, means, [0, 1, 2, 3, 100])
    assert curve["n_nodes"].tolist() == [0, 1, 2]


def test_parts_by_attribution_are_all_parts_with_one_from_the_largest_on(local):
    target = some_targets(local)[-1]
    totals = TotalAttributions(local, target)
    sizes: dict[Node, float] = {}
    for node in outputs(local):
        if node.kind in ("feature", "head", "mlp"):
            part = node._replace(source=-1)
            sizes[part] = sizes.get(part, 0.0) + number_of(totals, node)
    parts = parts_by_attribution(totals, 10**6)
    assert set(parts) == {part for part, size in sizes.items() if size != 0}
    found = [abs(sizes[part]) for part in parts]
    assert found == pytest.approx(sorted(found, reverse=True), rel=1e-4, abs=1e-6)
    assert all(parts_by_attribution(totals, n) == parts[:n] for n in (1, 5, 40))


def test_a_target_that_no_part_moves_has_no_shares(mixed, means):
    nothing = logit_target(mixed, {7: 1.0}, 0, name="after BOS, which is always kept")
    assert faithfulness(mixed, nothing, [], means, [0]).isna().sum().tolist() == [0, 1, 1]
