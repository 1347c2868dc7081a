"""Verdicts: what decides them, in which words they are said, and that they follow from tables."""

from contextlib import chdir
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from transcoders.claims import count_verdicts, describe, judge_claims, load_claims, measures
from transcoders.claims.ledger import COLUMNS, Evidence, _what_decides, verdict
from transcoders.claims.measures import MEASURES, Untestable
from transcoders.claims.words import OURS, SIGNS, numbers_in_words
from transcoders.config import load_scale
from transcoders.errors import UserError
from transcoders.layout import Layout
from transcoders.statistics import Estimate
from transcoders.tables.claims import claims_table

ROOT = Path(__file__).parents[2]
LISTED = ROOT / "config/claims.yaml"
ORDER = ["not reproduced", "inconclusive", "reproduced"]


CLAIMS = load_claims(LISTED)


@pytest.fixture(scope="module")
def rows():
    """What the laptop's tables say. Shared between tests: do not change."""
    with chdir(ROOT):
        layout = Layout("laptop")
        return judge_claims(CLAIMS, Evidence(load_scale(layout.config), layout))


def claim_with(**keys):
    """A claim with a margin of 0.5, other keys changed."""
    return CLAIMS[0].model_copy(update={"margin": 0.5, "needs": 10} | keys)


def judged(low, high, test, *, n=10, **keys):
    estimate = Estimate((low + high) / 2, low, high, n, "documents")
    return verdict(claim_with(test=test, **keys), estimate)


@pytest.mark.parametrize(
    ("low", "high", "superior", "not_inferior"),
    [
        (1, 3, "reproduced", "reproduced"),
        (-0.4, 3, "inconclusive", "reproduced"),
        (-0.4, -0.1, "not reproduced", "reproduced"),
        (-1, 1, "inconclusive", "inconclusive"),
        (-0.6, -0.4, "not reproduced", "inconclusive"),
        (-3, -0.6, "not reproduced", "not reproduced"),
        (0, 3, "inconclusive", "reproduced"),  # an interval that touches is not beyond
        (-0.5, 0, "inconclusive", "inconclusive"),
        (float("nan"), float("nan"), "inconclusive", "inconclusive"),
    ],
)
def test_verdicts_worked_by_hand(low, high, superior, not_inferior):
    assert judged(low, high, "superiority") == superior
    assert judged(low, high, "non-inferiority") == not_inferior
    assert judged(low, high, "superiority", n=9) == "inconclusive"  # too few decide nothing


ends = st.tuples(st.floats(-100, 100), st.floats(-100, 100)).map(sorted)
tests = st.sampled_from(["superiority", "non-inferiority"])


@given(ends=ends, test=tests, against=st.floats(-50, 50))
def test_turning_every_sign_changes_no_verdict(ends, test, against):
    turned = judged(-ends[1], -ends[0], test, against=-against, better="smaller")
    assert judged(*ends, test, against=against) == turned


@given(ends=ends, test=tests, by=st.floats(0, 50))
def test_more_is_never_judged_worse_and_superiority_asks_most(ends, test, by):
    more = judged(ends[0] + by, ends[1] + by, test)
    assert ORDER.index(judged(*ends, test)) <= ORDER.index(more)
    ranks = [ORDER.index(judged(*ends, each)) for each in ("superiority", "non-inferiority")]
    assert ranks[0] <= ranks[1]


@pytest.mark.parametrize(
    ("low", "high", "test", "notes"),
    [
        (-0.3, 0.4, "superiority", ["an effect of 0.5, the smallest that matters, is ruled out"]),
        (-0.3, 0.6, "superiority", []),
        (-0.6, -0.1, "non-inferiority", ["worse, but it is open whether by more than 0.5"]),
    ],
)
def test_what_an_interval_that_crosses_the_line_rules_out_is_said(low, high, test, notes):
    for better, ends in (("larger", (7 + low, 7 + high)), ("smaller", (7 - high, 7 - low))):
        claim = claim_with(test=test, against=7.0, better=better)
        assert _what_decides(claim, Estimate(7.0, *ends, 10, "documents"))[1:] == notes


def test_numbers_have_the_digits_of_their_interval():
    row = {"value": -4.4e-05, "low": -0.0083, "high": 0.0061, "unit": "fall of it"}
    assert numbers_in_words(row) == ["0.0000", "−0.0083", "0.0061"]
    row = {"value": -0.2389, "low": -0.403, "high": -0.072, "unit": "transcoder − SAE"}
    assert numbers_in_words(row) == ["−0.24", "−0.40", "−0.07"]
    row = {"value": 1.0, "low": 1.0, "high": 1.0, "unit": "a − b"}
    assert numbers_in_words(row) == ["+1.000"] * 3


def test_every_measure_decides_a_claim_and_every_claim_has_a_page():
    assert {claim.measure for claim in CLAIMS} == set(MEASURES)
    assert all((ROOT / f"workflow/notebooks/{claim.page}.ipynb").exists() for claim in CLAIMS)


def test_the_committed_ledger_follows_from_the_committed_tables(rows):
    committed = pd.read_csv(ROOT / "results/laptop/claims.csv").astype({"n": "Int64"})
    assert list(committed.columns) == list(rows.columns) == COLUMNS
    floats = dict.fromkeys(["margin", "value", "low", "high"], float)
    pd.testing.assert_frame_equal(committed, rows.astype(floats), rtol=1e-5)


def ratings_by(raters, by="person"):
    """41 of 50 transcoder features are interpretable, and 38 of 50 of the SAE, to every rater."""
    return pd.DataFrame(
        {
            "rater": rater, "by": by, "kind": kind, "feature": feature,
            "interpretable": feature < found, "context_free": False,
        }
        for rater in raters
        for kind, found in (("transcoder", 41), ("mlp_in_sae", 38))
        for feature in range(50)
    )  # fmt: skip


def test_a_feature_that_three_people_rate_counts_once(scale):
    one, three = (measures.rated_interpretable(scale, ratings_by(who)) for who in ("a", "abc"))
    assert one.estimate == three.estimate
    assert one.estimate.value == pytest.approx(3 / 50)
    assert one.estimate.n == 100 and one.estimate.low < -0.09
    assert (one.note, three.note) == ("one rater: a", "raters: a, b, c")
    assert measures.rated_context_free(scale, ratings_by("a")).estimate.value == 0


def test_language_models_count_only_where_no_person_rated(scale):
    models = ratings_by("xy", by="a parrot").assign(interpretable=False)
    both = pd.concat([ratings_by("a"), models])
    measure = measures.rated_interpretable
    assert measure(scale, both) == measure(scale, ratings_by("a"))
    alone = measure(scale, models)
    assert alone.estimate.value == 0
    assert alone.note == "no person rated; raters: x, y, by a parrot"


def test_a_feature_that_several_dictionaries_hold_counts_once(scale):
    # Of 6 studies, three are of feature 3051 at layer 12, in dictionaries of different sparsity.
    studies = pd.DataFrame(
        {
            "method": "layer 0, linear", "layer": [12, 12, 12, 20, 12, 20],
            "feature": [3051, 3051, 3051, 3051, 7, 8], "precision": [1.0, 1, 1, 0, 0, 0],
        }
    )  # fmt: skip
    found = measures.precision_of_de_embedding(scale, studies).estimate
    assert found.n == 4 and found.value == pytest.approx(0.5) and found.low == 0


def test_studies_that_were_picked_or_are_of_other_weights_count_for_nothing(scale):
    outcomes = ["success", "mostly", "failure", "other weights", "success"]
    studies = pd.DataFrame({"outcome": outcomes, "drawn": [True, True, True, True, False]})
    found = measures.share_of_successful_studies(scale, studies).estimate
    assert found.value == pytest.approx(2 / 3) and found.n == 3
    with pytest.raises(Untestable, match="drawn at random"):
        measures.share_of_successful_studies(scale, studies[3:])


@pytest.mark.parametrize(
    ("measure", "table", "why"),
    [
        ("rated_interpretable", ratings_by(""), "nobody"),
        ("rated_interpretable", ratings_by("a")[:50], "no feature of mlp_in_sae"),
        ("largest_completeness_error", [{"completeness_error": np.nan}], "no completeness error"),
    ],
)
def test_what_is_missing_in_a_table_is_said(scale, measure, table, why):
    with pytest.raises(Untestable, match=why):
        MEASURES[measure](scale, table)


def test_a_scale_without_a_table_cannot_test_its_claims(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    evidence = Evidence(load_scale(ROOT / "config/published.yaml"), Layout("published"))
    rows = judge_claims(CLAIMS, evidence)
    assert set(rows["verdict"]) == {"not testable at this scale"}
    assert rows["evidence"].str.startswith("this scale has no ").all()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"because": None}, "because"),
        ({"measure": "by_eye"}, "measure: no measure named 'by_eye'; expected one of"),
        ({}, "listed 2 times, expected once"),
    ],
)
def test_a_claim_that_is_not_valid_is_refused_by_its_name(tmp_path, change, said):
    content, path = yaml.safe_load(LISTED.read_text())[:2], tmp_path / "claims.yaml"
    path.write_text(yaml.safe_dump([*content, content[1] | change]))
    with pytest.raises(UserError, match=rf"claims\.yaml: (.|\n)*{content[1]['id']}: {said}"):
        load_claims(path)


def test_sites_make_one_claim_and_one_site_can_refute_it(rows):
    claims = rows[rows["kind"] == "claim"].assign(verdict="reproduced")
    n = claims["claim"].str.partition(":")[0].nunique()
    assert count_verdicts(claims) == f"Of the paper's {n} claims: {n} reproduced."
    for one in ("inconclusive", "not reproduced"):
        claims.iloc[0, COLUMNS.index("verdict")] = one
        assert count_verdicts(claims).endswith(f" claims: {n - 1} reproduced, 1 {one}.")


def test_what_one_training_run_decided_says_so(rows):
    shown = rows["claim"].str.startswith("pareto") | (rows["kind"] == "check")
    *fronts, check = describe(rows[shown]).splitlines()
    assert all("(one run)" in line and "80 documents" in line for line in fronts)
    assert "holds" in check and "one run" not in check
    assert "one run" not in describe(rows.assign(resampled="documents, training runs"))


def test_the_table_escapes_texts_links_pages_and_shows_every_verdict(rows):
    unsafe = rows["statement"].where(rows.index > 0, "<script>alert(1)</script>")
    shown = claims_table(rows.assign(statement=unsafe))
    assert "<script>" not in shown and "&lt;script&gt;" in shown
    claims = rows[rows["kind"] == "claim"]
    for found, sign in SIGNS.items():
        assert shown.count(f"<b>{sign} {found}") == (claims["verdict"] == found).sum()
    for page in {claim.page for claim in CLAIMS if claim.kind == "claim"}:
        assert f'<a href="{page}.html">{page}</a>' in shown
    assert claims_table(rows, kind="check").count("<tr>") == 2


def test_no_other_module_or_page_says_a_verdict():
    elsewhere = {
        (path.name, words)
        for path in (*ROOT.glob("src/**/*.py"), *ROOT.glob("workflow/notebooks/*.ipynb"))
        for words in (*SIGNS, *OURS.values())
        if "claims" not in (path.parent.name, path.stem) and words in path.read_text()
    }
    assert elsewhere == set()
