"""Every column of the evaluation, against a plain computation or a case with a known answer."""

import numpy as np
import pandas as pd
import pytest
import torch

from helpers_circuits import plain, replaced_mlps
from helpers_training import entry
from transcoders.config import TRAITS
from transcoders.corpus import Rows
from transcoders.dictionaries import SparseDictionary
from transcoders.evaluation import evaluate_site
from transcoders.models import mlp_activations, mlp_out_for, run_through_site
from transcoders.splicing import splice

LAYER, WIDTH, LENGTH = 1, 32, 12
DOCUMENTS = pd.DataFrame(
    {"id": ["zero", "one", "two", "three", "four"], "source": ["a", "a", "b", "b", "b"]}
)
# CE is about 6 nats; fp32 log probabilities are off by some 1e-6 each, and their mean by less.
NATS = 1e-6

COLUMNS = (
    "dictionary site model layer kind headline seed l1_coefficient n_features tokens_trained "
    "tokens_different tokens_evaluated l0 ce ce_low ce_high ce_original ce_mean_ablated "
    "ce_zero_ablated ce_recovered kl fvu dead_fraction l2_ratio"
)
MEAN_MLP_OUT = torch.linspace(-0.5, 0.5, WIDTH)
FROM_EACH_POSITION = pytest.mark.parametrize("first", [0, 1])
"""The first metric position."""


@pytest.fixture(scope="module")
def rows(random_tokens):
    return Rows(random_tokens(7, LENGTH), torch.tensor([2, 2, 0, 4, 4, 4, 0]).int())


@pytest.fixture(scope="module")
def measure(tiny_model, rows, scale):
    """Evaluate dictionaries, listed by any unique number, at one site of a tiny model."""

    def run(*dictionaries, first=1, batch_contexts=3):
        positions = "all" if first == 0 else "without_bos"
        entries = [
            (entry(dictionary.kind, 0.5 + number, k=32 + number), dictionary, trained(number))
            for number, dictionary in enumerate(dictionaries)
        ]
        corpus = scale.corpus.model_copy(update={"metric_positions": positions})
        evaluation = scale.evaluation.model_copy(update={"batch_contexts": batch_contexts})
        return evaluate_site(
            tiny_model, rows, DOCUMENTS, entries, MEAN_MLP_OUT, corpus, evaluation, seed=0
        )

    return run


def trained(number):
    """What the evaluation reads of a training record."""
    return {"seed": number, "tokens_trained": 4000 + number, "tokens_different": 1000 + number}


@torch.no_grad()
def plain_log_probs(model, rows, replacement, first):
    """Log probabilities (row, position, token) in float64 of the plain Hugging Face model.

    ``replacement`` is put in place of the MLP's output from position ``first`` on.
    """
    stand_ins = {} if replacement is None else {LAYER: lambda *_: replacement}
    with replaced_mlps(model, stand_ins, first):
        return plain(model).hf(rows.tokens).logits.double().log_softmax(dim=-1)


def plain_ce(model, rows, first, replacement=None):
    """Mean CE of the tokens after positions ``first`` to the last but one."""
    log_probs = plain_log_probs(model, rows, replacement, first)[:, first:-1]
    labels = rows.tokens[:, first + 1 :].long()
    return float(torch.nn.functional.nll_loss(log_probs.flatten(0, 1), labels.flatten()))


@FROM_EACH_POSITION
def test_ce_and_kl_and_bounds_are_those_of_hooks_on_the_untouched_model(
    measure, random_dictionary, tiny_model, rows, first
):
    transcoder = random_dictionary("transcoder")
    mlp_in = mlp_activations(tiny_model, rows.tokens, [LAYER])[LAYER].mlp_in[:, first:]
    replacement = transcoder.decode(transcoder.encode(mlp_in))
    original, spliced = (
        plain_log_probs(tiny_model, rows, mlp_out, first)[:, first:-1]
        for mlp_out in (None, replacement)
    )
    kl = (original.exp() * (original - spliced)).sum(dim=-1).mean().item()
    table, by_document = measure(transcoder, first=first)
    row = table.iloc[0]
    assert row.kl == pytest.approx(kl, abs=NATS) and kl > 0.1
    ablated = {"ce_mean_ablated": MEAN_MLP_OUT, "ce_zero_ablated": torch.zeros(WIDTH)}
    expected = {
        name: plain_ce(tiny_model, rows, first, mlp_out)
        for name, mlp_out in {"ce": replacement, "ce_original": None, **ablated}.items()
    }
    assert row[list(expected)].to_dict() == pytest.approx(expected, abs=NATS)
    assert len({round(ce, 3) for ce in expected.values()}) == 4
    chosen = rows.document == 4
    of_four = Rows(rows.tokens[chosen], rows.document[chosen])
    ce = plain_ce(tiny_model, of_four, first, replacement[chosen])
    assert by_document.set_index("document").ce["four"] == pytest.approx(ce, abs=NATS)


@FROM_EACH_POSITION
@pytest.mark.parametrize("kind", ["mlp_out_sae", "mlp_in_sae"])
def test_a_perfect_sae_costs_nothing(measure, kind, first):
    # Each sign of each dimension is a feature. Every product is with 1, -1 or 0, so exact.
    signs = torch.cat([torch.eye(WIDTH), -torch.eye(WIDTH)])
    weights = {"W_enc": signs.T.contiguous(), "W_dec": signs}
    biases = {"b_enc": torch.zeros(2 * WIDTH), "b_dec": torch.zeros(WIDTH)}
    row = measure(SparseDictionary(kind, **weights, **biases), first=first)[0].iloc[0]
    assert [row.ce, row.ce_low, row.ce_high] == pytest.approx([row.ce_original] * 3, abs=NATS)
    # Exact but for the rounding of the MLP, which runs again after a reconstruction of its input.
    assert row.kl == pytest.approx(0, abs=NATS)
    assert row.fvu == pytest.approx(0, abs=1e-12)
    assert row.l2_ratio == pytest.approx(1, abs=1e-12)
    assert row.ce_recovered == pytest.approx(1, abs=1e-4)  # NATS over a difference of 0.01 and more


def test_transcoders_that_give_the_mean_or_zero_are_the_ablations(measure, random_dictionary):
    constants = [random_dictionary("transcoder") for _ in range(2)]
    for constant, output in zip(constants, (MEAN_MLP_OUT, torch.zeros(WIDTH)), strict=True):
        constant.b_enc.data.fill_(-100)  # no feature is ever active
        constant.b_dec.data = output
    mean, zero = measure(*constants)[0].itertuples()
    assert mean.ce == mean.ce_mean_ablated
    assert (mean.ce_recovered, mean.l0, mean.dead_fraction) == (0, 0, 1)
    assert zero.ce == zero.ce_zero_ablated and zero.l2_ratio == 0


@FROM_EACH_POSITION
@pytest.mark.parametrize("kind", TRAITS)
def test_fvu_and_l2_ratio_and_l0_are_those_of_the_own_target(
    measure, tiny_model, rows, random_dictionary, *, kind, first
):
    dictionary = random_dictionary(kind)
    mlp_in, mlp_out = mlp_activations(tiny_model, rows.tokens, [LAYER])[LAYER]
    mlp_in, mlp_out = (each[:, first:].flatten(0, 1) for each in (mlp_in, mlp_out))
    z = dictionary.encode(mlp_in if TRAITS[kind].reads == "mlp_in" else mlp_out)
    x = (mlp_in if TRAITS[kind].imitates == "mlp_in" else mlp_out).double()
    y = dictionary.decode(z, mlp_in).double()
    row = measure(dictionary, first=first)[0].iloc[0]
    fvu = (x - y).square().sum() / (x - x.mean(dim=0)).square().sum()
    l2_ratio = y.norm(dim=1).mean() / x.norm(dim=1).mean()
    # Reconstructions of another batch shape differ in the last bits of fp32.
    assert row.fvu == pytest.approx(fvu.item(), rel=1e-5)
    assert row.l2_ratio == pytest.approx(l2_ratio.item(), rel=1e-5)
    assert row.l0 == pytest.approx((z > 0).sum(dim=1).double().mean().item())
    assert row.dead_fraction == pytest.approx(1 - (z > 0).any(dim=0).double().mean().item())


@FROM_EACH_POSITION
def test_columns_are_those_of_the_contract_and_documents_average_to_the_totals(
    measure, random_dictionary, first
):
    table, by_document = measure(*map(random_dictionary, TRAITS), first=first)
    assert list(table.columns) == COLUMNS.split()
    assert table[list(trained(0))].to_dict("records") == [*map(trained, range(len(TRAITS)))]
    predictions = LENGTH - 1 - first
    for row in table.itertuples():
        documents = by_document[by_document.dictionary == row.dictionary]
        assert documents[["document", "source", "tokens"]].to_numpy().tolist() == [
            ["zero", "a", 2 * predictions],
            ["two", "b", 2 * predictions],
            ["four", "b", 3 * predictions],
        ]
        for column in ("ce", "ce_original", "l0"):
            mean = np.average(documents[column], weights=documents.tokens)
            assert mean == pytest.approx(getattr(row, column), rel=1e-12)
        # Three documents: no resample's mean leaves the range of their differences.
        difference = documents.ce - documents.ce_original
        lowest, highest = (row.ce_original + f(difference) for f in (min, max))
        assert lowest - NATS <= row.ce_low <= row.ce <= row.ce_high <= highest + NATS
        assert row.ce_low < row.ce_high


def test_neither_other_dictionaries_nor_the_batch_size_change_a_number(measure, random_dictionary):
    dictionaries = [random_dictionary(kind) for kind in TRAITS]
    together, by_document = measure(*dictionaries)
    numbers = COLUMNS.split()[11:]
    for number, dictionary in enumerate(dictionaries):
        alone, _ = measure(dictionary)
        assert alone.loc[0, numbers].tolist() == together.loc[number, numbers].tolist()
    others = measure(*dictionaries, batch_contexts=1)
    for both in zip(others, (together, by_document), strict=True):
        # Rounding of fp32 may differ with the shape of a matrix product, nothing else. The share
        # that is recovered divides it by a small difference.
        found, expected = (each.drop(columns="ce_recovered", errors="ignore") for each in both)
        pd.testing.assert_frame_equal(found, expected, rtol=0, atol=NATS)


@pytest.mark.parametrize("kind", TRAITS)
@pytest.mark.parametrize("first", [1, 3])
def test_a_dictionary_reads_and_replaces_what_its_kind_says_from_the_first_position_on(
    tiny_model, rows, random_dictionary, *, kind, first
):
    passed, dictionary = run_through_site(tiny_model, rows.tokens, LAYER), random_dictionary(kind)
    spliced = splice(dictionary, passed, tiny_model, LAYER, first_position=first)
    mlp_in, mlp_out = passed.activations
    source = mlp_in if dictionary.traits.is_transcoder or kind == "mlp_in_sae" else mlp_out
    assert torch.equal(spliced.z, dictionary.encode(source[:, first:]))
    expected = dictionary(source[:, first:], mlp_in[:, first:])
    assert torch.equal(spliced.reconstruction, expected)
    if kind == "mlp_in_sae":  # the MLP runs on the reconstruction
        read = torch.cat([mlp_in[:, :first], expected], dim=1)
        expected = mlp_out_for(tiny_model, passed, LAYER, read)[:, first:]
    assert torch.equal(spliced.target, (mlp_in if kind == "mlp_in_sae" else mlp_out)[:, first:])
    assert torch.equal(spliced.mlp_out[:, :first], mlp_out[:, :first])
    assert torch.equal(spliced.mlp_out[:, first:], expected)
    assert (expected != mlp_out[:, first:]).any(dim=-1).all()
