"""Cross entropy with MLPs replaced is that of a plain model with hooks written by hand."""

from collections import Counter

import pytest
import torch
from torch import nn

from helpers_circuits import number_of, outputs, plain, replaced_mlps, some_targets
from transcoders.circuits.faithfulness import mean_activations
from transcoders.circuits.quality import (
    BATCH,
    one_row_a_document,
    origins,
    replaced_layers,
    replacement_quality,
)
from transcoders.circuits.verify import TotalAttributions
from transcoders.corpus import Rows


@torch.no_grad()
def ce_by_hand(replacement, rows, stand_ins):
    """Mean cross entropy from position 1 on, some MLPs of the plain model replaced after BOS."""
    with replaced_mlps(replacement.model, stand_ins, 1):
        logits = plain(replacement.model).hf(rows, use_cache=False).logits[:, 1:-1]
    return nn.functional.cross_entropy(logits.flatten(0, 1), rows[:, 2:].flatten())


def test_each_set_of_layers_costs_what_hooks_written_by_hand_cost(mixed, random_tokens):
    replacement, rows = mixed.replacement, random_tokens(BATCH + 1, 8, seed=6).long()
    found = mean_activations(replacement, rows)
    means = {layer: found["mlp", layer] for layer in replacement.transcoders}
    table = replacement_quality(replacement, rows, means, first_metric_position=1, seed=1)
    assert table["layers"].tolist() == ["", "2", "0 2"]
    assert table["n_replaced"].tolist() == [0, 1, 2]
    assert (table["documents"].unique(), table["tokens"].unique()) == ([5], [30])
    original = ce_by_hand(replacement, rows, {}).item()
    for row, layers in zip(table.itertuples(), ([], [2], [0, 2]), strict=True):
        transcoders = {i: lambda read, _, i=i: replacement.transcoders[i](read) for i in layers}
        averages = {i: lambda *_, i=i: means[i] for i in layers}
        assert row.ce == pytest.approx(ce_by_hand(replacement, rows, transcoders).item(), rel=1e-4)
        ablated = ce_by_hand(replacement, rows, averages).item()
        assert row.ce_mean_ablated == pytest.approx(ablated, rel=1e-4)
        assert row.ce_original == pytest.approx(original, rel=1e-4)
        assert row.ce_low <= row.ce <= row.ce_high
    assert table["ce_low"][0] == table["ce_high"][0] == table["ce_original"][0]
    assert table["ce"].nunique() == 3


def test_layers_are_replaced_from_the_last_down_and_in_the_end_all():
    assert replaced_layers([0, 12, 26, 28, 29])[:3] == [[29], [28, 29], [12, 26, 28, 29]]
    assert replaced_layers([0, 12, 26])[-1] == [0, 12, 26]


def test_every_document_counts_once():
    rows = Rows(torch.arange(12).view(6, 2), torch.tensor([4, 4, 7, 7, 7, 1]))
    assert one_row_a_document(rows).tolist() == [[0, 1], [4, 5], [10, 11]]


def test_origins_are_sums_over_nodes_and_add_up_to_the_target(small):
    for target in (some_targets(small)[0], some_targets(small)[-1]):
        totals = TotalAttributions(small, target)
        table = origins(target, totals)
        assert table["share"].sum() == pytest.approx(1)
        sums = Counter()
        for node in outputs(small):
            if node.kind in ("embed", "mlp", "error"):
                sums[node.kind, node.layer] += number_of(totals, node)
        found = table.set_index(["origin", "layer"])["attribution"]
        scale = max(map(abs, sums.values()))
        for origin, total in sums.items():  # origins that add nothing are left out
            assert found.get(origin, 0.0) == pytest.approx(total, rel=1e-3, abs=1e-4 * scale)
        if target.logits:  # before a feature, there may be no transcoder
            assert (table["origin"] == "error").any() == bool(small.replacement.transcoders)
