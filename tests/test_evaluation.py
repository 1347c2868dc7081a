"""Every column of the evaluation, against a plain computation or a case with a known answer."""

import numpy as np
import pandas as pd
import pytest
import torch

from helpers_circuits import plain, replaced_mlps
from transcoders.config import TRAITS, Dictionary, Site
from transcoders.corpus import Rows
from transcoders.dictionaries import SparseDictionary
from transcoders.evaluation import evaluate_site
from transcoders.models import mlp_activations

LAYER, WIDTH, LENGTH = 1, 32, 12
DOCUMENT_OF_ROW = [2, 2, 0, 4, 4, 4, 0]
DOCUMENTS = pd.DataFrame(
    {"id": ["zero", "one", "two", "three", "four"], "source": ["a", "a", "b", "b", "b"]}
)
# CE is about 6 nats; fp32 log probabilities are off by some 1e-6 each, and their mean by less.
NATS = 1e-6

# The columns of evaluation.csv and evaluation_by_document.csv as DESIGN.md, "Contract", lists them.
COLUMNS = (
    "dictionary site model layer kind headline seed l1_coefficient n_features tokens_trained "
    "tokens_different tokens_evaluated l0 ce ce_low ce_high ce_original ce_mean_ablated "
    "ce_zero_ablated ce_recovered kl fvu dead_fraction l2_ratio"
)
BY_DOCUMENT_COLUMNS = "dictionary document source tokens ce ce_original l0"


@pytest.fixture(scope="module")
def rows(random_tokens):
    return Rows(random_tokens(len(DOCUMENT_OF_ROW), LENGTH), torch.tensor(DOCUMENT_OF_ROW).int())


@pytest.fixture(params=[0, 1], ids=["from position 0", "from position 1"])
def first(request):
    """The first metric position."""
    return int(request.param)


@pytest.fixture(scope="module")
def mean_mlp_out():
    return torch.linspace(-0.5, 0.5, WIDTH)


@pytest.fixture(scope="module")
def measure(tiny_model, rows, mean_mlp_out, scale):
    """Evaluate dictionaries, listed by any unique number, at one site of a tiny model."""

    def run(*dictionaries, first=1, mean=mean_mlp_out, batch_contexts=3, **changes):
        positions = "all" if first == 0 else "without_bos"
        entries = [
            (entry_of(dictionary.kind, number), dictionary, trained(number))
            for number, dictionary in enumerate(dictionaries)
        ]
        return evaluate_site(
            tiny_model,
            changes.get("rows", rows),
            DOCUMENTS,
            entries,
            mean,
            scale.corpus.model_copy(update={"metric_positions": positions}),
            scale.evaluation.model_copy(update={"batch_contexts": batch_contexts}),
            seed=0,
        )

    return run


def trained(number):
    """What the evaluation reads of a training record."""
    return {"seed": number, "tokens_trained": 4000 + number, "tokens_different": 1000 + number}


def entry_of(kind, number):
    site = Site(model="tiny", layer=LAYER)
    sparsity = {"k": 32 + number} if TRAITS[kind].is_topk else {"l1_coefficient": 0.5 + number}
    return Dictionary(site=site, kind=kind, headline=True, group="tiny", **sparsity)


def constant_transcoder(output):
    """No feature is ever active: the output is ``b_dec``."""
    return SparseDictionary(
        "transcoder",
        W_enc=torch.zeros(WIDTH, 8),
        b_enc=torch.full((8,), -100.0),
        W_dec=torch.zeros(8, WIDTH),
        b_dec=output.clone(),
    )


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


def test_ce_and_kl_and_bounds_are_those_of_hooks_on_the_untouched_model(
    measure, random_dictionary, tiny_model, rows, mean_mlp_out, first
):
    transcoder = random_dictionary("transcoder")
    mlp_in = mlp_activations(tiny_model, rows.tokens, [LAYER])[LAYER].mlp_in[:, first:]
    replacement = transcoder.decode(transcoder.encode(mlp_in))
    original, spliced = (
        plain_log_probs(tiny_model, rows, mlp_out, first)[:, first:-1]
        for mlp_out in (None, replacement)
    )
    kl = (original.exp() * (original - spliced)).sum(dim=-1).mean().item()
    row = measure(transcoder, first=first)[0].iloc[0]
    assert row.kl == pytest.approx(kl, abs=NATS) and kl > 0.1
    ablated = {"ce_mean_ablated": mean_mlp_out, "ce_zero_ablated": torch.zeros(WIDTH)}
    expected = {
        name: plain_ce(tiny_model, rows, first, mlp_out)
        for name, mlp_out in {"ce": replacement, "ce_original": None, **ablated}.items()
    }
    assert row[list(expected)].to_dict() == pytest.approx(expected, abs=NATS)
    assert len({round(ce, 3) for ce in expected.values()}) == 4


@pytest.mark.parametrize("kind", ["mlp_out_sae", "mlp_in_sae"])
def test_a_perfect_sae_costs_nothing(measure, identity_dictionary, *, kind, first):
    table, _ = measure(identity_dictionary(kind), first=first)
    row = table.iloc[0]
    assert row[["ce", "ce_low", "ce_high"]].tolist() == pytest.approx(
        [row.ce_original] * 3, abs=NATS
    )
    # Exact but for the rounding of the MLP, which runs again after a reconstruction of its input.
    assert row.kl == pytest.approx(0, abs=NATS)
    assert row.fvu == pytest.approx(0, abs=1e-12)
    assert row.l2_ratio == pytest.approx(1, abs=1e-12)
    assert row.ce_recovered == pytest.approx(1, abs=1e-4)  # NATS over a difference of 0.01 and more


def test_transcoders_that_give_the_mean_or_zero_are_the_ablations(measure, mean_mlp_out, first):
    constants = (constant_transcoder(output) for output in (mean_mlp_out, torch.zeros(WIDTH)))
    mean, zero = measure(*constants, first=first)[0].itertuples()
    assert mean.ce == mean.ce_mean_ablated
    assert mean.ce_recovered == 0
    assert mean.l0 == 0
    assert mean.dead_fraction == 1
    assert zero.ce == zero.ce_zero_ablated
    assert zero.l2_ratio == 0


@pytest.mark.parametrize("kind", TRAITS)
def test_fvu_and_l2_ratio_and_l0_are_those_of_the_own_target(
    measure, tiny_model, rows, random_dictionary, *, kind, first
):
    dictionary = random_dictionary(kind)
    mlp_in, mlp_out = mlp_activations(tiny_model, rows.tokens, [LAYER])[LAYER]
    source = (mlp_in if TRAITS[kind].reads == "mlp_in" else mlp_out)[:, first:].flatten(0, 1)
    target = (mlp_in if TRAITS[kind].imitates == "mlp_in" else mlp_out)[:, first:].flatten(0, 1)
    z = dictionary.encode(source)
    reconstruction = dictionary.decode(z, mlp_in[:, first:].flatten(0, 1))
    x, y = target.double().numpy(), reconstruction.double().numpy()
    table, _ = measure(dictionary, first=first)
    row = table.iloc[0]
    fvu = np.square(x - y).sum() / np.square(x - x.mean(axis=0)).sum()
    norms = [np.linalg.norm(vectors, axis=1).mean() for vectors in (y, x)]
    # Reconstructions of another batch shape differ in the last bits of fp32.
    assert row.fvu == pytest.approx(fvu, rel=1e-5)
    assert row.l2_ratio == pytest.approx(norms[0] / norms[1], rel=1e-5)
    assert row.l0 == pytest.approx((z > 0).sum(dim=1).double().mean().item())
    assert not TRAITS[kind].is_topk or row.l0 <= 8
    assert row.dead_fraction == pytest.approx(1 - (z > 0).any(dim=0).double().mean().item())


def test_columns_are_those_of_the_contract_and_documents_average_to_the_totals(
    measure, random_dictionary, first
):
    table, by_document = measure(*map(random_dictionary, TRAITS), first=first)
    assert list(table.columns) == COLUMNS.split()
    assert list(by_document.columns) == BY_DOCUMENT_COLUMNS.split()
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


def test_a_documents_numbers_are_those_of_its_rows_alone(measure, random_dictionary, rows):
    dictionary = random_dictionary("transcoder")
    _, together = measure(dictionary)
    chosen = rows.document == 4
    # The bootstrap needs two documents: the same rows stand for another one.
    halves = [Rows(rows.tokens[chosen], torch.full((3,), number)) for number in (1, 4)]
    alone = measure(dictionary, rows=Rows(*map(torch.cat, zip(*halves, strict=True))))[1]
    numbers = ["tokens", "ce", "ce_original", "l0"]
    expected = together.set_index("document").loc["four", numbers].tolist()
    for name in ("one", "four"):
        found = alone.set_index("document").loc[name, numbers].tolist()
        assert found == pytest.approx(expected, abs=NATS)


@pytest.mark.parametrize("batch_contexts", [1, 7])
def test_the_batch_size_does_not_change_the_results(measure, random_dictionary, batch_contexts):
    dictionaries = [random_dictionary(kind) for kind in TRAITS]
    for both in zip(
        measure(*dictionaries, batch_contexts=batch_contexts), measure(*dictionaries), strict=True
    ):
        # Rounding of fp32 may differ with the shape of a matrix product, nothing else. The share
        # that is recovered divides it by a small difference.
        found, expected = (each.drop(columns="ce_recovered", errors="ignore") for each in both)
        pd.testing.assert_frame_equal(found, expected, rtol=0, atol=NATS)


def test_each_dictionary_is_measured_as_if_it_were_alone(measure, random_dictionary):
    dictionaries = [random_dictionary(kind) for kind in TRAITS]
    together, _ = measure(*dictionaries)
    numbers = COLUMNS.split()[11:]
    for number, dictionary in enumerate(dictionaries):
        alone, _ = measure(dictionary)
        assert alone.loc[0, numbers].tolist() == together.loc[number, numbers].tolist()
