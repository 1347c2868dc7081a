"""Ablations are those of hooks on the whole model, and the rule finds a planted circuit."""

from itertools import product

import pandas as pd
import pytest
import torch

import helpers_circuits as by_hand
from helpers_greater_than import Plant, only, plant_circuit, sign
from transcoders.circuits.paths import Search
from transcoders.circuits.vectors import logit_target
from transcoders.circuits.verify import TotalAttributions
from transcoders.greater_than.ablations import ablate, leads
from transcoders.greater_than.where import COMPONENTS, Attributions, _recurring, attribute, choose

YEARS = (4, 23, 60, 99)
"""With digits, the first and the last year have nothing to tell apart; with pairs, the last."""
SEARCH = Search(12, 3, COMPONENTS)


def replacement_of(setting, make, first=1):
    """Transcoders at layers 0 and 2, a TopK one among them."""
    mix = {0: "transcoder", 2: "topk_transcoder"}
    return by_hand.make_circuit(setting.model, make, mix, first=first)


@torch.no_grad()
def ablated_by_hand(setting, layer, head, kind):
    """The next token's probability difference, a part ablated at the end of whole prompts."""
    block = by_hand.plain(setting.model).blocks[layer]
    # A bias of a head's values is added whatever it reads, so it stays.
    constant = torch.zeros(()) if head < 0 else value_bias(setting, layer, head)

    def changed(values):
        result = values.clone()
        part = result[:, -1] if head < 0 else result[:, -1].split(16, dim=1)[head]
        if kind is not None:
            part[:] = constant if kind == "zero" else sum(part) / len(part)
        return result

    differences = []
    if head < 0:
        hook = block.mlp.register_forward_hook(lambda _, __, output: changed(output))
    else:
        hook = block.attention_out.register_forward_pre_hook(lambda _, given: (changed(given[0]),))
    with hook:
        for group in setting.prompts:
            logits = setting.hf(input_ids=group.rows, use_cache=False).logits[:, -1]
            p = logits[:, setting.numbers.ids].softmax(dim=1).tolist()
            differences += [
                sum(sign(setting.numbers, year, number) * x for number, x in enumerate(of_year))
                for of_year, year in zip(p, group.years.tolist(), strict=True)
                if 0 < year < 99
            ]
    return sum(differences) / len(differences)


def value_bias(setting, layer, head):
    """What a head's values are where its norm gives nothing but its bias."""
    match setting.hf.config.model_type:
        case "gpt2":
            own = setting.hf.transformer.h[layer].attn.c_attn.bias[64:].view(2, 16)[head]
        case "gpt_neox":
            attention = setting.hf.gpt_neox.layers[layer].attention
            own = attention.query_key_value.bias.view(2, 3, 16)[head, 2]
        case _:
            return torch.zeros(16)
    block = by_hand.plain(setting.model).blocks[layer]
    return own + block.norm_1.bias @ block.W_V[head]


def test_ablations_are_those_of_hooks_on_the_whole_model(any_setting, random_dictionary):
    replacement = replacement_of(any_setting, random_dictionary)
    original, table, losses = ablate(replacement, any_setting.numbers, any_setting.prompts)
    assert losses.shape == (len(table), 98)
    assert losses.mean(axis=1) == pytest.approx(table["mean"].to_numpy())
    whole = ablated_by_hand(any_setting, 0, -1, None)
    assert original == pytest.approx(whole, abs=1e-5)
    for row in table.to_dict("records"):
        for kind in ("zero", "mean"):
            left = ablated_by_hand(any_setting, row["layer"], row["head"], kind)
            assert row[kind] == pytest.approx(whole - left, abs=1e-5)
    assert table["zero"].abs().max() > 1e-3
    assert table["mean"].abs().max() > 1e-4


def through_heads_by_hand(local, written, feature, attribution, source):
    """What each head brings one feature from one token, times what the feature is worth."""
    model, weights = local.replacement.model, local.replacement.transcoders[feature.layer]
    norm = by_hand.plain(model).blocks[feature.layer].norm_2
    stream = by_hand.plain_pass(model, local.passed.tokens).before_mlp[feature.layer][feature.token]
    read = by_hand.centred(norm, weights.W_enc[:, feature.unit]) / by_hand.divisor(norm, stream)
    worth = attribution / (read @ stream + weights.b_enc[feature.unit]).item()
    reader = by_hand.Reader(read, "feature", feature.layer, feature.token, 0.0)
    found = torch.zeros(local.replacement.n_layers, local.replacement.n_heads)
    for node, output in written.items():
        if node.kind == "head" and node.source == source and by_hand.sees(local, reader, node):
            found[node.layer, node.unit] += worth * (read @ output)
    return found


def test_attributions_are_sums_over_nodes_averaged_over_prompts(any_setting, random_dictionary):
    replacement = replacement_of(any_setting, random_dictionary)
    groups = [only(group, YEARS) for group in any_setting.prompts]
    values = []
    mlps, heads = torch.zeros(3), torch.zeros(3, 2)
    into = {layer: torch.zeros(3, 2) for layer in replacement.transcoders}
    for group in groups:
        for row, year in zip(group.rows, group.years.tolist(), strict=True):
            if (weights := any_setting.numbers.contrast(year)) is None:
                continue
            local = replacement.freeze(row)
            totals = TotalAttributions(local, logit_target(local, weights, -1, name="later"))
            logits = by_hand.plain_pass(replacement.model, row).logits[-1]
            values.append(sum(weight * logits[i].item() for i, weight in weights.items()))
            written = by_hand.outputs(local)
            for node in written:
                attribution = by_hand.number_of(totals, node)
                if node.kind in ("mlp", "feature"):
                    mlps[node.layer] += attribution
                elif node.kind == "head":
                    heads[node.layer, node.unit] += attribution
                if node.kind == "feature":
                    into[node.layer] += through_heads_by_hand(
                        local, written, node, attribution, group.year_token
                    )
    n = 6 if any_setting.numbers.style == "pairs" else 4
    assert len(values) == n
    found = attribute(replacement, any_setting.numbers, groups, SEARCH)
    assert found.value == pytest.approx(sum(values) / n, rel=1e-4, abs=1e-5)
    by_hand.assert_close(found.mlps, mlps / n)
    by_hand.assert_close(found.heads, heads / n)
    assert list(found.into_mlps) == [0, 2]
    for layer, carried in found.into_mlps.items():
        by_hand.assert_close(carried, into[layer] / n, 1e-4)
    assert found.into_mlps[2].abs().min() > 0 or replacement.is_parallel
    assert set(found.examples["year"]) == {60}


NONE, EARLY = [[0.0, 0.0]] * 3, [[0.0, 9.0], [0.0, 0.0], [0.0, 0.0]]
LATE = [[1.0, 2.0], [4.0, -5.0], [3.0, 0.0]]


@pytest.mark.parametrize(
    ("mlps", "into", "layer", "head"),
    [
        ([9.0, 1.0, 2.0], {0: NONE, 1: EARLY, 2: LATE}, 2, (1, 0)),  # layer 0 is left out
        ([9.0, 1.0, 2.0], {0: NONE, 1: EARLY}, 1, (0, 1)),  # layer 2 has no transcoder
        ([9.0, -2.0, -8.0], {0: NONE, 1: EARLY, 2: LATE}, 1, (0, 1)),  # not the largest in size
        # All heads that the MLP sees take something away; the last neither gives nor takes.
        ([0.0, 1.0, 0.0], {1: [[-3.0, -2.0], [-4.0, -5.0], [0.0, 0.0]]}, 1, (0, 1)),
    ],
)
def test_the_rule_takes_the_largest_attributions(
    setting, random_dictionary, *, mlps, into, layer, head
):
    mix, nothing = dict.fromkeys(into, "transcoder"), pd.DataFrame()
    heads = {at: torch.tensor(values) for at, values in into.items()}
    found = Attributions(1, 1.0, torch.tensor(mlps), torch.zeros(3, 2), heads, nothing, nothing)
    replacement = by_hand.make_circuit(setting.model, random_dictionary, mix, first=1, n_features=5)
    assert choose(replacement, found) == (layer, head)


def test_recurring_parts_are_counted_once_a_prompt():
    ends = [(1, "attn0[1]", "year", 0.5), (1, "attn0[1]", "year", 0.25),
            (1, "tc0[7]", "last", 3.0), (2, "attn0[1]", "year", 1.0)]  # fmt: skip
    rows = [("attn0[1]", "year", 2, 0.5, 1.75 / 4), ("tc0[7]", "last", 1, 0.25, 0.75)]
    assert list(_recurring(ends, 4).itertuples(index=False, name=None)) == rows


ALONE = [Plant(1, (0, 0)), Plant(2, (2, 1))]
WITH_DECOYS = [
    Plant(2, (1, 0), from_elsewhere=(1, 1)),
    Plant(1, (1, 0), from_elsewhere=(0, 1), to_logits=(2, 0)),
]


@pytest.fixture(scope="module", params=[*ALONE, *WITH_DECOYS], ids=str)
def planted(request, tiny_models):
    return (request.param, *plant_circuit(tiny_models["gpt2"], request.param))


def test_the_rule_finds_the_planted_mlp_and_head(planted):
    plant, replacement, numbers, prompts = planted
    found = attribute(replacement, numbers, [only(prompts, range(2, 100, 8))], SEARCH)
    assert choose(replacement, found) == (plant.layer, plant.head)
    # It stands out: the plant, and not what is small and random, decides.
    assert found.mlps[plant.layer] > 0.5 * found.value or plant.to_logits is not None
    into = found.into_mlps[plant.layer].flatten().sort(descending=True).values
    assert into[0] > 10 * into[1].abs()


@pytest.mark.parametrize("planted", ALONE, ids=str, indirect=True)
def test_ablation_ranks_the_plant_first_too(planted):
    plant, replacement, numbers, prompts = planted
    original, table, losses = ablate(replacement, numbers, [prompts])
    assert original > 0.5
    ahead = leads(table, losses, plant.layer, plant.head, seed=0)
    # The task is decided in some decades more than in others: few resamples have none of them.
    assert ahead["lead"]["value"] > 0.02
    assert all(part["first"] > 0.95 for part in ahead["parts"])
    chosen = ("mlp", f"mlp{plant.layer}"), ("head", "attn{}[{}]".format(*plant.head))
    for (kind, part), ablation in product(chosen, ("zero", "mean")):
        lost = table[table["kind"] == kind].set_index("part")[ablation]
        first, second = lost.nlargest(2)
        assert lost.idxmax() == part and first > max(0.05, 10 * second)
