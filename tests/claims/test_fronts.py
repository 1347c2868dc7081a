"""Gaps between fronts, on tables made by hand."""

import numpy as np
import pandas as pd
import pytest

from transcoders.fronts import GRID_POINTS, Setup, front_gap
from transcoders.statistics import estimate

TOKENS = np.array([100, 300, 50, 250])
"""Tokens of each document."""
DOCUMENTS = ["d0", "d1", "d2", "d3"]
OFFSETS = np.array([-0.8, 0.1, 1.5, 0.3])
"""How much harder than the average each document is."""
OFFSETS = OFFSETS - np.average(OFFSETS, weights=TOKENS)

WORTH = 0.5
"""What the MLP is worth, in nats."""
SAES = [(8.0, 3.9), (20.0, 3.6), (60.0, 3.45), (150.0, 3.4)]
CROSSING = [(5.0, 4.2), (30.0, 3.5), (90.0, 3.5)]
ALIKE = Setup(64, 512, 512)


def tables(*, site="gpt2_layer8", tokens=TOKENS, **points):
    """Both tables of an evaluation, from the points of every kind."""
    evaluation, by_document = [], []
    for kind, pairs in points.items():
        for number, (l0, ce) in enumerate(pairs):
            name = f"{site}_{kind}_{number}"
            bounds = {"ce_original": 3.0, "ce_mean_ablated": 3.0 + WORTH}
            row = {"dictionary": name, "site": site, "kind": kind, "l0": l0, "ce": ce, "seed": 42}
            evaluation.append(row | bounds | ALIKE._asdict())
            of = {"dictionary": name, "document": DOCUMENTS, "tokens": tokens}
            by_document.append(pd.DataFrame(of | {"l0": l0, "ce": ce + OFFSETS}))
    return pd.DataFrame(evaluation), pd.concat(by_document, ignore_index=True)


def gap_of(**points):
    return gap_in(tables(**points), resamples=200)


def gap_in(both, resamples=2000):
    found = front_gap(*both, "gpt2_layer8", setup=ALIKE, resamples=resamples)
    return found and estimate(found.draws[:, 0], found.n_documents, "documents")


@pytest.mark.parametrize("shift", [-0.05, 0.0, 0.05])
def test_a_shifted_front_is_off_by_the_shift_on_every_resample(shift):
    # Documents differ by more than 2 nats, dictionaries by 0.05: only pairing gives a sharp
    # interval.
    gap = gap_of(transcoder=[(l0, ce + shift) for l0, ce in SAES], mlp_out_sae=SAES)
    assert gap[:3] == pytest.approx([-shift / WORTH] * 3, abs=1e-12)
    assert (gap.n, gap.resampled) == (4, "documents")


def test_fronts_are_interpolated_linearly_in_the_logarithm_of_l0():
    both = tables(transcoder=CROSSING, mlp_out_sae=SAES)
    found = front_gap(*both, "gpt2_layer8", setup=ALIKE, resamples=10)
    grid = np.linspace(np.log(8), np.log(90), GRID_POINTS)
    transcoder, sae = (
        np.interp(grid, np.log([l0 for l0, _ in points]), [ce for _, ce in points])
        for points in (CROSSING, SAES)
    )
    assert (found.l0_low, found.l0_high) == pytest.approx((8, 90))
    assert found.draws[0, 0] == pytest.approx((sae - transcoder).mean() / WORTH, abs=1e-12)


def test_there_is_no_gap_where_fronts_share_no_range():
    for transcoders in ([(150.0, 3.3), (300.0, 3.2)], [(30.0, 3.3)], []):
        assert gap_of(transcoder=transcoders, mlp_out_sae=SAES) is None


def noisy_tables():
    """Tables in which the gap differs from document to document."""
    evaluation, by_document = tables(transcoder=CROSSING, mlp_out_sae=SAES)
    noise = np.random.default_rng(0).normal(scale=0.1, size=len(by_document))
    return evaluation, by_document.assign(ce=by_document["ce"] + noise)


def test_sparsity_is_resampled_with_the_documents():
    # The SAE's L0 differs between documents. CE does not, so nothing else can widen the interval.
    evaluation, by_document = tables(transcoder=SAES, mlp_out_sae=SAES)
    by_document["ce"] -= by_document["document"].map(dict(zip(DOCUMENTS, OFFSETS, strict=True)))
    is_sae = by_document["dictionary"].str.contains("sae")
    by_document.loc[is_sae & (by_document["document"] == "d1"), "l0"] *= 1.5
    gap = gap_in((evaluation, by_document))
    assert gap.high - gap.low > 0.01


@pytest.mark.parametrize("column", Setup._fields)
def test_only_dictionaries_that_were_trained_alike_are_compared(column):
    here = noisy_tables()
    evaluation, by_document = (
        table.assign(ce=0.0, dictionary="other_" + table["dictionary"]) for table in here
    )
    both = above((evaluation.assign(**{column: 1024}), by_document), here)
    assert gap_in(both, resamples=100) == gap_in(here, resamples=100)


def test_documents_count_by_their_tokens():
    evaluation, by_document = tables(transcoder=SAES, mlp_out_sae=SAES)
    is_transcoder = by_document["dictionary"].str.contains("transcoder")
    by_document.loc[is_transcoder & (by_document["document"] == "d1"), "ce"] -= 0.7
    gap = gap_in((evaluation, by_document), resamples=100)
    assert gap.value == pytest.approx(0.7 * TOKENS[1] / TOKENS.sum() / WORTH)


def above(first, second):
    return [pd.concat(pair, ignore_index=True) for pair in zip(first, second, strict=True)]


def test_another_model_makes_no_difference():
    # Its tokenizer splits the same documents into other numbers of tokens. One document differs.
    here = noisy_tables()
    there = tables(site="neox_layer2", tokens=TOKENS[::-1], transcoder=SAES, mlp_out_sae=SAES)
    there[1]["document"] = there[1]["document"].replace({"d3": "d4"})
    for both in (above(there, here), above(here, there)):
        assert gap_in(both, resamples=100) == gap_in(here, resamples=100)


def test_neither_an_l0_of_zero_nor_the_same_one_twice_changes_a_front():
    plain = gap_of(transcoder=CROSSING, mlp_out_sae=SAES)
    # A dictionary without active features: 0 has no logarithm.
    assert gap_of(transcoder=[(0.0, 5.0), *CROSSING], mlp_out_sae=SAES) == plain
    twice = gap_of(transcoder=[*CROSSING, CROSSING[-1]], mlp_out_sae=SAES)
    assert twice[:3] == pytest.approx(plain[:3])
