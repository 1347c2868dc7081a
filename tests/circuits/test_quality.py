"""Cross entropy with MLPs replaced is that of a plain model with hooks written by hand."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from helpers_circuits import (
    Make,
    all_paths,
    make_circuit,
    plain,
    some_targets,
    watched,
    without_weight,
)
from transcoders.circuits.ablation import mean_activations
from transcoders.circuits.quality import (
    BATCH,
    one_row_a_document,
    origins,
    replaced_layers,
    replacement_quality,
)
from transcoders.circuits.replacement import LocalReplacementModel, ReplacementModel
from transcoders.circuits.verify import TotalAttributions
from transcoders.corpus import Rows


@pytest.fixture(scope="module")
def rows(random_tokens: Callable[..., Tensor]) -> Tensor:
    """Text: more rows than are run at a time."""
    return random_tokens(BATCH + 1, 8, seed=6).long()


def means_of(replacement: ReplacementModel, rows: Tensor) -> dict[int, Tensor]:
    means = mean_activations(replacement, rows)
    return {layer: means["mlp", layer] for layer in replacement.transcoders}


@torch.no_grad()
def ce_by_hand(replacement: ReplacementModel, rows: Tensor, stand_ins: dict[int, Any]) -> Tensor:
    """Mean cross entropy from position 1 on, with some MLPs of the plain model replaced after BOS.

    A stand-in is given what the MLP reads, after normalisation, at all positions but BOS.
    """
    hf, blocks, _ = plain(replacement.model)
    with watched([block.norm_2 for block in blocks]) as seen, ExitStack() as hooked:
        for layer, stand_in in stand_ins.items():

            def hook(
                _: Any, __: Any, own: Tensor, norm: nn.Module = blocks[layer].norm_2,
                stand_in: Any = stand_in,
            ) -> Tensor:  # fmt: skip
                own = own.clone()
                own[:, 1:] = stand_in(without_weight(norm, seen[norm][0])[:, 1:])
                return own

            hooked.enter_context(blocks[layer].mlp.register_forward_hook(hook))
        logits = hf(rows, use_cache=False).logits[:, 1:-1]
    return nn.functional.cross_entropy(logits.flatten(0, 1), rows[:, 2:].flatten())


def test_each_set_of_layers_costs_what_hooks_written_by_hand_cost(
    mixed: LocalReplacementModel, rows: Tensor
) -> None:
    replacement = mixed.replacement
    means = means_of(replacement, rows)
    table = replacement_quality(replacement, rows, means, first_metric_position=1, seed=1)
    assert table["layers"].tolist() == ["", "2", "0 2"]
    assert table["n_replaced"].tolist() == [0, 1, 2]
    assert (table["documents"].unique(), table["tokens"].unique()) == ([5], [30])
    original = ce_by_hand(replacement, rows, {}).item()
    for row, layers in zip(table.itertuples(), ([], [2], [0, 2]), strict=True):
        transcoders = {layer: replacement.transcoders[layer] for layer in layers}
        averages = {layer: lambda _, mean=means[layer]: mean for layer in layers}
        assert row.ce == pytest.approx(ce_by_hand(replacement, rows, transcoders).item(), rel=1e-4)
        ablated = ce_by_hand(replacement, rows, averages).item()
        assert row.ce_mean_ablated == pytest.approx(ablated, rel=1e-4)
        assert row.ce_original == pytest.approx(original, rel=1e-4)
        assert row.ce_low <= row.ce <= row.ce_high
    nothing = table.iloc[0]
    assert nothing["ce"] == nothing["ce_mean_ablated"] == nothing["ce_original"]
    assert nothing["ce_low"] == nothing["ce_high"] == nothing["ce"]
    assert table["ce"].nunique() == 3


def test_a_model_without_transcoders_costs_nothing(
    gpt2_replacement: ReplacementModel, random_dictionary: Make, rows: Tensor
) -> None:
    bare = make_circuit(gpt2_replacement.model, random_dictionary, {}, first=1)
    table = replacement_quality(bare, rows, {}, first_metric_position=1, seed=1)
    assert table["n_replaced"].tolist() == [0]
    assert table["ce"].tolist() == table["ce_original"].tolist()


def test_layers_are_replaced_from_the_last_down_and_in_the_end_all() -> None:
    assert replaced_layers([]) == []
    assert replaced_layers([3]) == [[3]]
    assert replaced_layers([0, 12, 20, 24, 26]) == [
        [26], [24, 26], [12, 20, 24, 26], [0, 12, 20, 24, 26],
    ]  # fmt: skip
    assert [len(layers) for layers in replaced_layers(range(30))] == [1, 2, 4, 8, 16, 30]
    assert [len(layers) for layers in replaced_layers(range(8))] == [1, 2, 4, 8]


def test_every_document_counts_once() -> None:
    rows = Rows(torch.arange(12).view(6, 2), torch.tensor([4, 4, 7, 7, 7, 1]))
    assert one_row_a_document(rows).tolist() == [[0, 1], [4, 5], [10, 11]]


def test_origins_are_sums_over_all_paths_and_add_up_to_the_target(
    small: LocalReplacementModel,
) -> None:
    for target in (some_targets(small)[0], some_targets(small)[-1]):
        totals = TotalAttributions(small, target)
        table = origins(target, totals)
        assert table["attribution"].sum() == pytest.approx(target.value, rel=1e-4, abs=1e-5)
        assert table["share"].sum() == pytest.approx(1)
        sums = dict.fromkeys(zip(table["origin"], table["layer"], strict=True), 0.0)
        for path in all_paths(small, target):
            node = path.nodes[-1]
            if node.kind in ("embed", "mlp", "error"):
                sums[node.kind, node.layer] += path.attribution
        sums.pop(("bias", -1))
        found = table["attribution"][:-1].tolist()
        scale = max(map(abs, sums.values()))
        assert found == pytest.approx(list(sums.values()), rel=1e-3, abs=1e-4 * scale)
        if target.logits:  # of a feature, no earlier layer need have a transcoder
            assert (table["origin"] == "error").any() == bool(small.replacement.transcoders)
