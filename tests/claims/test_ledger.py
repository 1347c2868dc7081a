"""Verdicts: what decides them, in which words they are said, and that they follow from tables."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from transcoders.claims import count_verdicts, describe, judge_claims, load_claims, measures
from transcoders.claims.ledger import COLUMNS, Claim, Evidence, _what_decides, verdict
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


@pytest.fixture
def laptop(monkeypatch):
    monkeypatch.chdir(ROOT)
    layout = Layout("laptop")
    return Evidence(load_scale(layout.config), layout)


@pytest.fixture
def rows(laptop):
    return judge_claims(load_claims(LISTED), laptop)


def judged(low, high, test, *, n=10, **keys):
    listed = yaml.safe_load(LISTED.read_text())[0]
    claim = Claim.model_validate(listed | {"test": test, "margin": 0.5, "needs": 10} | keys)
    return verdict(claim, Estimate((low + high) / 2, low, high, n, "documents"))


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


def test_the_line_that_decides_is_said(rows):
    evidence = rows.set_index(rows["claim"].str.partition(":")[0])["evidence"]
    for claim, line in (
        ("weights-alone", "above 0.5"), ("bad-feature", "above 0"), ("context-free", "below 0")
    ):  # fmt: skip
        assert f"reproduced if the whole interval is {line};" in evidence[claim]
    assert evidence["pareto"].str.contains("whole interval is above −0.027;").all()
    assert not evidence["circuits-factorise"].startswith("reproduced")


@pytest.mark.parametrize(
    ("low", "high", "test", "note"),
    [
        (-0.3, 0.4, "superiority", "effect of 0.5, the smallest that matters, is ruled out"),
        (-0.3, 0.6, "superiority", None),
        (-0.6, -0.1, "non-inferiority", "worse, but it is open whether by more than 0.5"),
        (-0.6, 0.1, "non-inferiority", None),
    ],
)
def test_what_an_interval_that_crosses_the_line_rules_out_is_said(low, high, test, note):
    listed = yaml.safe_load(LISTED.read_text())[0]
    keys = {"test": test, "margin": 0.5, "against": 7.0, "needs": 50}
    for better, ends in (("larger", (7 + low, 7 + high)), ("smaller", (7 - high, 7 - low))):
        claim = Claim.model_validate(listed | keys | {"better": better})
        _, *others = _what_decides(claim, Estimate(7.0, *ends, 50, "documents"))
        assert len(others) == (note is not None) and all(note in each for each in others)
        few = Estimate(7.0, *ends, 49, "documents")
        assert len(_what_decides(claim, few)) == 1


def test_numbers_have_the_digits_of_their_interval():
    row = {"value": -4.4e-05, "low": -0.0083, "high": 0.0061, "unit": "fall of it"}
    assert numbers_in_words(row) == ["0.0000", "−0.0083", "0.0061"]
    row = {"value": -0.2389, "low": -0.403, "high": -0.072, "unit": "transcoder − SAE"}
    assert numbers_in_words(row) == ["−0.24", "−0.40", "−0.07"]
    row = {"value": 1.0, "low": 1.0, "high": 1.0, "unit": "a − b"}
    assert numbers_in_words(row) == ["+1.000"] * 3


def test_every_measure_decides_a_claim_and_every_claim_has_a_page():
    claims = load_claims(LISTED)
    assert {claim.measure for claim in claims} == set(MEASURES)
    notebooks = {path.stem for path in (ROOT / "workflow/notebooks").glob("*.ipynb")}
    assert {claim.page for claim in claims} <= notebooks


def test_the_committed_ledger_follows_from_the_committed_tables(rows):
    committed = pd.read_csv(ROOT / "results/laptop/claims.csv").astype({"n": "Int64"})
    assert list(committed.columns) == list(rows.columns) == COLUMNS
    numbers = ["margin", "value", "low", "high"]
    rows[numbers] = rows[numbers].astype(float)
    pd.testing.assert_frame_equal(committed, rows, rtol=1e-5)


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
            "feature": [3051, 3051, 3051, 3051, 7, 8],
            "precision": [1.0, 1, 1, 0, 0, 0], "precision_control": 0.0,
        }
    )  # fmt: skip
    found = measures.precision_of_de_embedding(scale, studies).estimate
    assert found.n == 4 and found.value == pytest.approx(0.5)
    assert found.low == 0


STUDIES = pd.DataFrame(
    {
        "outcome": ["success", "mostly", "failure", "other weights", "success"],
        "drawn": [True, True, True, True, False],
    }
)


def test_studies_that_were_picked_or_are_of_other_weights_count_for_nothing(scale):
    found = measures.share_of_successful_studies(scale, STUDIES).estimate
    assert found.value == pytest.approx(2 / 3) and found.n == 3


ONE_TOKEN = pd.DataFrame(
    {"dictionary": ["x"], "feature": 0, "measure": "single_token_share", "value": 1.0}
)
BLIND = pd.DataFrame({"method": ["heads"], "layer": 1, "feature": 1, "precision": 0.5})


@pytest.mark.parametrize(
    ("measure", "table", "why"),
    [
        ("rated_interpretable", ratings_by(""), "nobody"),
        ("rated_interpretable", ratings_by("a")[:50], "no feature of mlp_in_sae"),
        ("precision_of_de_embedding", BLIND, "studied blind"),
        ("context_free_gap", ONE_TOKEN, "no feature of"),
        ("rule_accuracy_gap", ONE_TOKEN.assign(measure="frequency"), "no measure rule_accuracy"),
        ("share_of_successful_studies", STUDIES[3:], "drawn at random"),
        ("largest_completeness_error", [{"completeness_error": np.nan}], "no completeness error"),
        ("lead_of_chosen_parts", {"leads": None}, "has no leads"),
        ("step_after_own_years", {"own_above_others": {"step": None}}, "than two features"),
    ],
)
def test_what_is_missing_in_a_table_is_said(scale, measure, table, why):
    with pytest.raises(Untestable, match=why):
        MEASURES[measure](scale, table)


def test_a_scale_of_one_model_says_nothing_of_sizes(rows):
    found = rows.set_index("claim").loc["gap-grows-with-model", "evidence"]
    assert found.startswith("there is one model only")


def test_a_scale_without_a_table_cannot_test_its_claims(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    evidence = Evidence(load_scale(ROOT / "config/published.yaml"), Layout("published"))
    rows = judge_claims(load_claims(LISTED), evidence)
    assert set(rows["verdict"]) == {"not testable at this scale"}
    assert rows["evidence"].str.startswith("this scale has no ").all()


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"margin": 0}, "margin"),
        ({"because": None}, "because"),
        ({"measure": "by_eye"}, "measure: no measure named 'by_eye'; expected one of"),
        ({"by_hand": True}, "by_hand: "),
    ],
)
def test_a_claim_that_is_not_valid_is_refused_by_its_name(tmp_path, change, key):
    content, path = yaml.safe_load(LISTED.read_text()), tmp_path / "claims.yaml"
    content[1] |= change
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(UserError) as caught:
        load_claims(path)
    for word in (str(path), content[1]["id"], key):
        assert word in str(caught.value)


def test_a_claim_is_listed_once(tmp_path):
    content, path = yaml.safe_load(LISTED.read_text()), tmp_path / "claims.yaml"
    path.write_text(yaml.safe_dump([*content, content[1]]))
    with pytest.raises(UserError, match=f"{content[1]['id']}: listed 2 times, expected once"):
        load_claims(path)


def test_no_other_module_or_page_says_a_verdict():
    said = [*SIGNS, *OURS.values()]
    places = [*ROOT.glob("src/**/*.py"), *ROOT.glob("workflow/notebooks/*.ipynb")]
    elsewhere = {
        (path.name, words)
        for path in places
        for words in said
        if "claims" not in (path.parent.name, path.stem) and words in path.read_text()
    }
    assert elsewhere == set()


def test_sites_make_one_claim_and_one_site_can_refute_it(rows):
    claims = rows[rows["kind"] == "claim"].copy()
    claims["verdict"] = "reproduced"
    n = len({row.partition(":")[0] for row in claims["claim"]})
    assert count_verdicts(claims) == f"Of the paper's {n} claims: {n} reproduced."
    for verdict_of_one in ("inconclusive", "not reproduced"):
        claims.iloc[0, COLUMNS.index("verdict")] = verdict_of_one
        expected = f"{n - 1} reproduced, 1 {verdict_of_one}."
        assert count_verdicts(claims) == f"Of the paper's {n} claims: {expected}"


def test_what_one_training_run_decided_says_so(rows):
    shown = rows["claim"].str.startswith("pareto") | (rows["kind"] == "check")
    lines = describe(rows[shown]).splitlines()
    assert len(lines) == 4
    assert all("(one run)" in line and "80 documents" in line for line in lines[:3])
    assert "holds" in lines[3] and "one run" not in lines[3]
    several = rows.assign(resampled="documents, training runs")
    assert "one run" not in describe(several)


def test_the_table_escapes_texts_links_pages_and_shows_every_verdict(rows, laptop):
    rows.loc[0, "statement"] = "<script>alert(1)</script>"
    shown = claims_table(rows)
    assert "<script>" not in shown and "&lt;script&gt;" in shown
    claims = rows[rows["kind"] == "claim"]
    for found, sign in SIGNS.items():
        assert shown.count(f"<b>{sign} {found}") == (claims["verdict"] == found).sum()
    for page in {claim.page for claim in load_claims(LISTED) if claim.kind == "claim"}:
        assert f'<a href="{page}.html">{page}</a>' in shown
        assert (laptop.layout.notebook(page)).with_suffix(".html").exists()
    assert claims_table(rows, kind="check").count("<tr>") == 2
