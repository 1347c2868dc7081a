"""Ablating parts of the real model, and keeping parts, gives what hooks written by hand give."""

from contextlib import ExitStack

import pytest
import torch

from helpers_circuits import outputs, plain, replaced_mlps, watched, without_weight
from transcoders.circuits import ablation
from transcoders.circuits.ablation import BATCH, changes_when_scaled
from transcoders.circuits.faithfulness import faithfulness, parts_by_attribution, replaceable_parts
from transcoders.circuits.notation import Node
from transcoders.circuits.vectors import logit_target
from transcoders.circuits.verify import TotalAttributions


@torch.no_grad()
def value_by_hand(local, target, hooks, stand_ins=None):
    """The target in the plain model with some modules' outputs changed, and MLPs replaced."""
    replacement = local.replacement
    hf, blocks, _ = plain(replacement.model)
    replaced = replaced_mlps(replacement.model, stand_ins or {}, replacement.first_position)
    with ExitStack() as hooked, replaced as seen:
        for module, hook in hooks.items():
            hooked.enter_context(module.register_forward_hook(hook))
        logits = hf(local.passed.tokens[None], use_cache=False).logits[0, target.node.token]
    if target.node.kind == "feature":
        norm = blocks[target.node.layer].norm_2
        read = without_weight(norm, seen[norm][0][0, target.node.token])
        z = replacement.transcoders[target.node.layer].encode(read)
        return z[target.node.unit].item()
    return sum(weight * logits[i].item() for i, weight in target.logits.items())


@pytest.mark.parametrize("rows", [BATCH, 3], ids=["short prompt", "as if long"])
def test_changes_are_those_of_hooks_written_by_hand(mixed, target, nodes, rows, monkeypatch):
    monkeypatch.setattr(ablation, "BATCH_TOKENS", rows * mixed.n_tokens)
    assert len(next(iter(ablation.batches(mixed, nodes)))) == rows < len(nodes)
    written = outputs(mixed)
    changes = changes_when_scaled(mixed, target, nodes, 0)
    whole = value_by_hand(mixed, target, {})
    for node, change in zip(nodes, changes, strict=True):

        def without(_, __, output, node=node):
            output = output.clone()
            output[0, node.token] -= written[node]
            return output

        block = plain(mixed.replacement.model).blocks[node.layer]
        writer = block.attention_out if node.kind == "head" else block.mlp
        value = value_by_hand(mixed, target, {writer: without})
        assert change == pytest.approx(value - whole, rel=1e-3, abs=1e-4)
    assert max(map(abs, changes)) > 0.1


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


def value_with_means(local, target, rows, nodes):
    """The target with means from the first position on; ``nodes`` are as they were."""
    replacement, means = local.replacement, plain_means(local, rows)
    first, blocks = replacement.first_position, plain(replacement.model).blocks

    def kept(kind, layer):
        # What stands before the first position stays as it is in any case.
        return [node for node in nodes if node.token >= first and node[:2] == (kind, layer)]

    def mlp(layer):
        def stand_in(read, real):
            output = means["mlp", layer].expand_as(real).clone()
            for node in kept("mlp", layer):
                output[0, node.token - first] = real[0, node.token - first]
            for node in kept("feature", layer):
                transcoder = replacement.transcoders[layer]
                z = transcoder.encode(read[0, node.token - first])[node.unit]
                more = z - means["feature", layer][node.unit]
                output[0, node.token - first] += more * transcoder.W_dec[node.unit]
            return output

        return stand_in

    def attention(layer):
        def hook(module, arguments, _):
            real = arguments[0].unflatten(2, (replacement.n_heads, -1))
            x = real.clone()
            x[0, first:] = means["head", layer]
            for node in kept("head", layer):
                x[0, node.token, node.unit] = real[0, node.token, node.unit]
            return module.forward(x.flatten(2))

        return hook

    hooks = {block.attention_out: attention(layer) for layer, block in enumerate(blocks)}
    return value_by_hand(local, target, hooks, {layer: mlp(layer) for layer in range(len(blocks))})


def test_faithfulness_is_the_share_of_the_target_between_nothing_and_everything(
    mixed, means, text, logits
):
    ranked = parts_by_attribution(TotalAttributions(mixed, logits), 20)
    curve = faithfulness(mixed, logits, ranked, means, [0, 1, 5, 20])
    assert curve["n_nodes"].tolist() == [0, 1, 5, 20]
    whole = value_by_hand(mixed, logits, {})
    empty = value_with_means(mixed, logits, text, [])
    for size, found in zip(curve["n_nodes"], curve["faithfulness"], strict=True):
        value = value_with_means(mixed, logits, text, ranked[:size])
        assert found == pytest.approx((value - empty) / (whole - empty), rel=1e-3, abs=1e-4)


def test_parts_count_heads_once_and_only_what_can_be_replaced(mixed, means, logits):
    heads = [Node("head", 1, 0, 7, source) for source in (2, 5)]
    ranked = [*heads, Node("error", 0, -1, 7), Node("mlp", 1, -1, 7), Node("bias", -1, -1, 7)]
    assert replaceable_parts(ranked) == [Node("head", 1, 0, 7), Node("mlp", 1, -1, 7)]
    curve = faithfulness(mixed, logits, ranked, means, [0, 1, 2, 3, 100])
    assert curve["n_nodes"].tolist() == [0, 1, 2]


def test_a_target_that_no_part_moves_has_no_shares(mixed, means):
    nothing = logit_target(mixed, {7: 1.0}, 0, name="after BOS, which is always kept")
    assert faithfulness(mixed, nothing, [], means, [0]).isna().sum().tolist() == [0, 1, 1]
