"""One factor at a time: what explains a gap, what does not, and what nobody can tell."""

import re

import numpy as np
import pytest

from helpers_gaps import Made, tables
from transcoders.gaps import Pairs, why
from transcoders.gaps.why import explains
from transcoders.gaps.words import answers, in_short, why_in_words
from transcoders.statistics import Estimate

RULE = {"margin": 0.027, "needs": 50}
FEW, MOST = 2**16, 2**20
TOPK, SKIP = ("topk_transcoder", "topk_sae"), ("skip_transcoder", "skip_sae")
PLAIN = [Made(-0.10, MOST), Made(-0.10, MOST, seed=1), Made(-0.10, MOST, seed=2)]


def asked(pairs, *, noise=0.01, documents=60):
    """The table of the first site, with a row for each factor; of widths, the widest."""
    table = found_in(tables(pairs, noise=noise, documents=documents), resamples=400)
    table = table[table["site"] == table["site"].head(1).squeeze()]
    return table[~table.index.duplicated(keep="last")]


def answer(table):
    """The sentence for the only site."""
    [said] = answers(table.reset_index())
    return said


def found_in(made, *, resamples=100):
    return why(Pairs(*made, seed=0, resamples=resamples), **RULE).set_index("factor")


def controls(data, steps, width, topk, skip):
    """Everything that is asked, given how much each factor changes the gap of -0.10."""
    return [
        *PLAIN,
        Made(-0.10 - data, FEW),
        Made(-0.10 - data + steps, FEW, passes=16),
        Made(-0.10 + width / 2, MOST, n_features=128),
        Made(-0.10 + width, MOST, n_features=256),
        Made(-0.10 + topk, MOST, kinds=TOPK),
        Made(-0.10 + skip, MOST, kinds=SKIP),
    ]


def test_every_factor_is_the_change_that_was_made():
    made = controls(0.05, 0.02, 0.04, 0.10, -0.03)
    table = asked(made)
    truth = {"data": 0.05, "steps": 0.02, "data at equal steps": 0.03, "width": 0.04,
             "shrinkage": 0.10, "affine part": -0.03}  # fmt: skip
    for factor, change in truth.items():
        row = table.loc[factor]
        assert row["low"] < change < row["high"]
        assert row["change"] == pytest.approx(row["after"] - row["before"])
        assert row["share_of_gap"] == pytest.approx(row["change"] / -row["before"])
    parts = table.loc[["steps", "data at equal steps"], "change"].sum()
    assert table.loc["data", "change"] == pytest.approx(parts)
    assert table.loc["gap", "change"] == pytest.approx(-0.10, abs=0.01)
    both = found_in(tables(made, noise=0.01)).loc["width"]  # each is compared with the narrowest
    widths = both["comparison"].str.partition(",")[0].tolist()
    assert widths == ["64 → 128 features", "64 → 256 features"]
    assert both["change"].tolist() == pytest.approx([0.02, 0.04], abs=0.01)


def test_each_factor_gets_its_answer_and_the_sentence_names_it_under_what_was_found():
    table = asked(controls(0.05, 0.005, 0.10, 0.0, 0.06), noise=0.005)
    answers = {"data": "partly", "steps": "no", "width": "yes", "shrinkage": "no",
               "affine part": "partly"}  # fmt: skip
    assert table.loc[list(answers), "explains"].to_dict() == answers
    start, _, causes = answer(table).partition(", which is ")
    assert start.startswith("At layer 1 of tiny and at equal sparsity, transcoders do worse than")
    explained, in_part, not_at_all, *_ = causes.split("; ")
    assert explained == "explained by too few features"
    assert "by too little data" in in_part and "the affine part of the MLP" in in_part
    assert "the shrinkage" in not_at_all and "too few training steps" in not_at_all
    said = why_in_words(table.reset_index())
    assert said.count("\n- ") == len(table) and "nan" not in said


def estimate(low, high, n=60):
    return Estimate((low + high) / 2, low, high, n, "documents")


BEFORE = estimate(-0.12, -0.08)


@pytest.mark.parametrize(
    ("before", "after", "change", "answered"),
    [
        (BEFORE, estimate(-0.02, 0.02), estimate(0.07, 0.13), "yes"),
        (BEFORE, estimate(-0.03, 0.02), estimate(0.07, 0.13), "partly"),
        (BEFORE, estimate(-0.12, -0.07), estimate(0.001, 0.026), "no"),  # too little to matter
        (BEFORE, estimate(-0.12, 0.05), estimate(-0.02, 0.13), "cannot tell"),
        (estimate(-0.12, 0.0), estimate(-0.02, 0.02), estimate(0.07, 0.13), "cannot tell"),
        (BEFORE, estimate(-0.02, 0.02), estimate(0.07, 0.13, n=49), "cannot tell"),
    ],
)
def test_the_rule_worked_by_hand(before, after, change, answered):
    assert explains(before, after, change, **RULE) == answered


@pytest.mark.full
def test_a_control_without_effect_is_rarely_called_one():
    random = np.random.default_rng(0)
    said = []
    for _ in range(100):
        runs = [pair._replace(gap=pair.gap + 0.01 * random.normal()) for pair in PLAIN]
        topk = Made(-0.10 + 0.01 * random.normal(), MOST, kinds=TOPK)
        table = found_in(tables([*runs, topk], noise=0.05, random=random), resamples=200)
        said.append(table.loc["shrinkage", "explains"])
    assert said.count("yes") + said.count("partly") <= 7
    assert "no" in said


@pytest.mark.parametrize(
    ("dead", "norm", "answered"), [(0.3, 0.5, "cannot tell"), (0.04, 0.9, "no")]
)
def test_levels_can_refute_a_cause_and_prove_none(dead, norm, answered):
    few = Made(-0.2, FEW)
    plain = [pair._replace(dead=(dead, 0.0), norm=(norm, 0.8)) for pair in PLAIN]
    rows, alone = (
        asked([*of, few]).loc[["dead features", "norm kept"]] for of in (plain, plain[:1])
    )
    assert set(rows["explains"]) == {answered}
    assert rows["after"].tolist() == pytest.approx([dead, norm])
    assert rows["before"].tolist() == pytest.approx([0.0, 0.8])
    assert set(alone["explains"]) == {"cannot tell"} and alone["low"].isna().all()


def test_levels_are_compared_at_equal_l0():
    # Dead features and L0 go together, and the SAEs are sparser. At equal L0 nothing differs.
    evaluation, by_document = tables([*PLAIN, Made(-0.2, FEW)])
    sae = evaluation["kind"] == "mlp_out_sae"
    evaluation.loc[sae, "l0"] *= 2
    evaluation["dead_fraction"] = np.log(evaluation["l0"]) / 10
    table = found_in((evaluation, by_document))
    assert table.loc["dead features", "change"] == pytest.approx(0, abs=1e-12)


def test_a_change_is_measured_where_all_fronts_are():
    # The gap is larger at high L0, which the other width does not reach.
    wide = Made(-0.1, MOST, n_features=128, l0=(8.0, 12.0, 30.0))
    evaluation, by_document = tables([Made(-0.1, MOST), wide])
    dense = evaluation.query("l0 == 90 and kind == 'transcoder'")["dictionary"]
    by_document.loc[by_document["dictionary"].isin(dense), "ce"] += 0.2
    row = found_in((evaluation, by_document)).loc["width"]
    assert row["comparison"].endswith("L0 8 to 30")
    assert row["change"] == pytest.approx(0, abs=1e-9)


def test_in_short_sites_are_sorted_by_what_steps_and_tokens_changed_there():
    def site(layer, steps, tokens):
        name = f"tiny_layer{layer}"
        few = Made(-0.1, FEW, site=name)
        repeated = few._replace(gap=-0.1 + steps, passes=16)
        return [few, repeated, Made(-0.1 + steps + tokens, MOST, site=name)]

    made = [*site(1, 0.2, 0.0), *site(2, 0.3, 0.0), *site(10, 0.0, -0.2)]
    table = found_in(tables(made, noise=0.02)).reset_index()
    steps, tokens = in_short(table).removesuffix(".").split(". ")
    assert re.match(
        r"More training steps .* help transcoders at layers 1 and 2 \(the gap changes by "
        r"\+0\.\d+ and \+0\.\d+\) and make no measurable difference at layer 10 of tiny \(", steps,
    )  # fmt: skip
    assert tokens.startswith(
        "More different tokens, for as many steps, harm transcoders at layer 10"
    )
    assert "no measurable difference at layers 1 and 2 (" in tokens


def test_without_any_control_there_is_no_row():
    assert asked([Made(-0.3), Made(-0.3, seed=1)]).empty
    assert "no fronts" in answer(asked([Made(-0.3)]))


def test_chance_is_said_where_runs_differ_as_much_as_the_gap():
    few = Made(-0.2, FEW)
    apart = [Made(gap, MOST, seed=n) for n, gap in ((42, -0.1), (1, 0.05), (2, -0.15))]
    table = asked([*apart, few])
    row = table.loc["training seeds"]
    assert row["explains"] == "cannot tell"
    assert row["low"] < row["change"] < row["high"]
    assert row["change"] == pytest.approx(np.std([-0.1, 0.05, -0.15], ddof=1), rel=0.1)
    assert asked([*PLAIN, few]).loc["training seeds", "explains"] == "no"


def test_the_answer_claims_no_deficit_where_there_is_none():
    gone = [*(pair._replace(gap=0.0) for pair in PLAIN), Made(-0.1, FEW)]
    said = answer(asked(gone))
    assert "not measurably worse" in said and "with the least data it was −0.1" in said
    repeated = answer(asked([*gone, Made(-0.03, FEW, passes=16)]))
    assert "the same few tokens change that by +0.07" in repeated
    better = answer(asked([pair._replace(gap=0.1) for pair in gone]))
    assert "do better than" in better and "explained" not in better
