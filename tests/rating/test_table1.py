"""Table 1 from ratings whose counts are known, against scipy and by hand."""

import json
import re
from types import SimpleNamespace

import pandas as pd
import pytest
from scipy import stats

from helpers_rating import finished, make_study
from transcoders.errors import UserError
from transcoders.layout import Layout
from transcoders.rating.records import VERDICTS, Rating, save_record
from transcoders.rating.study import begin
from transcoders.rating.table1 import write_table1
from transcoders.tables.interpretability import describe_ratings, ratings_table

COUNTS = {
    "transcoder": {"interpretable": 12, "maybe": 5, "uninterpretable": 3},
    "mlp_in_sae": {"interpretable": 7, "maybe": 9, "uninterpretable": 4},
}
CONTEXT_FREE = {"transcoder": 2, "mlp_in_sae": 6}
LAYOUT = Layout("smoke")
PAPERS = ["41 / 38", "8 / 8", "1 / 4", "6 / 16", "50 / 50"]
"""The paper's row of Table 1."""


@pytest.fixture(scope="module")
def study():
    return make_study()


@pytest.fixture(autouse=True)
def inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def written(study):
    """What was written of all ratings."""
    write_table1(lambda: study or pytest.fail("not needed"), LAYOUT)
    # What is infinite or undefined must not be in JSON.
    text = LAYOUT.table1.with_suffix(".json").read_text()
    record = json.loads(text, parse_constant=pytest.fail)
    table, features = pd.read_csv(LAYOUT.table1), pd.read_csv(LAYOUT.rated_features)
    return SimpleNamespace(table=table, record=record, features=features)


def rate(study, rater):
    """Save finished ratings with as many of each as :data:`COUNTS` says."""
    key = study.open(finished(study, LAYOUT.ratings, rater))
    ratings = {}
    for kind, of_kind in COUNTS.items():
        verdicts = [verdict for verdict, count in of_kind.items() for _ in range(count)]
        items = key.loc[key["kind"] == kind, "item"]
        for rank, (item, verdict) in enumerate(zip(items, verdicts, strict=True), start=1):
            # The last ones, which are not all interpretable.
            context_free = rank > len(verdicts) - CONTEXT_FREE[kind]
            ratings[item] = Rating(verdict=verdict, context_free=context_free)
    return save(study, rater, ratings)


def save(study, rater, ratings, **changes):
    """Save some ratings in place of those of a rater who has finished."""
    record = finished(study, LAYOUT.ratings, rater)
    record = record.model_copy(update={"ratings": record.ratings | ratings, **changes})
    save_record(LAYOUT.ratings, record)
    return record


def test_counts_beside_the_papers_shares_tests_and_what_was_said_of_each_feature(study):
    rate(study, "anna")
    found = written(study)
    table, record = found.table.set_index("rating"), found.record
    assert (set(table["rater"]), set(table["by"])) == ({"anna"}, {"person"})
    assert table["paper_transcoder"].tolist() == [41, 8, 1, 6, 50]
    assert table["paper_mlp_in_sae"].tolist() == [38, 8, 4, 16, 50]
    for kind, said in found.features.groupby("kind"):
        counts = COUNTS[kind] | {"context-free": CONTEXT_FREE[kind], "rated": 20}
        assert table[kind].to_dict() == counts
        assert len(said) == 20 and said["feature"].is_unique
        assert said["interpretable"].sum() == counts["interpretable"]
        assert said["context_free"].sum() == counts["context-free"]
    assert (record["text"], record["agreement"]) == ("ratings by anna", None)
    shares, tests = record["raters"]["anna"]["shares"], record["raters"]["anna"]["tests"]
    wilson = stats.binomtest(12, 20).proportion_ci(method="wilson")
    assert shares["interpretable"]["transcoder"] == {
        "count": 12, "of": 20, "share": 0.6,
        "low": pytest.approx(wilson.low), "high": pytest.approx(wilson.high),
    }  # fmt: skip
    assert tests["interpretable"]["odds_ratio"] == pytest.approx((12 * 13) / (8 * 7))
    assert tests["context-free"]["odds_ratio"] == pytest.approx((2 * 14) / (18 * 6))
    assert tests["context-free"]["p_value"] == stats.fisher_exact([[2, 18], [6, 14]]).pvalue


def test_no_ratings_yet_and_no_study_is_needed():
    found = written(None)
    assert set(found.table["rater"]) == {"no ratings yet"}
    assert found.record["text"] == "no ratings yet" and found.features.empty
    assert describe_ratings(found.record) == "**No person rated.**"
    # The paper's row stands alone.
    assert shown(found.table) == PAPERS


def shown(table):
    table = ratings_table(table.astype(object).fillna("").astype(str))
    return re.findall(r"\d+ / \d+", table)


def test_people_and_language_models_are_told_apart(study):
    rate(study, "anna")
    said = rate(study, "ben").ratings
    save(study, "parrot", said, language_model="a parrot")
    same = dict.fromkeys(said, Rating(verdict="maybe", context_free=True))
    save(study, "polly", same, language_model="a parrot")
    found = written(study)
    said = describe_ratings(found.record)
    assert "People who rated: anna, ben." in said
    assert "Language models rated: parrot (a parrot), polly (a parrot)." in said
    agreed = "(Cohen's κ, mean over pairs): {0} on the rating, {0} on context-free"
    assert f"between people {agreed.format('1.00')}" in said
    assert f"between runs of a parrot {agreed.format('0.00')}" in said
    ours = ["12 / 7", "5 / 9", "3 / 4", "2 / 6", "20 / 20"]
    polly = ["0 / 0", "20 / 20", "0 / 0", "20 / 20", "20 / 20"]
    assert shown(found.table) == [*ours, *ours, *ours, *polly, *PAPERS]
    with pytest.raises(UserError, match=r"begun by person.*choose another name"):
        begin(study, LAYOUT.ratings, "anna", "a parrot")


def test_who_has_not_finished_or_rated_other_weights_is_not_counted(study):
    save(study, "bob", {3: Rating()}, finished=False)
    save(study, "cleo", {}, weights=["a", "c"])
    (LAYOUT.ratings / ".bob.partial.json").write_text("{")
    rate(study, "anna")
    found = written(study)
    assert set(found.table["rater"]) == {"anna"}
    assert found.record["under_way"] == {"bob": {"rated": 39, "of": 40}}
    assert found.record["other_weights"] == ["cleo"]
    assert "rated dictionaries with other weights: cleo." in describe_ratings(found.record)


def test_agreement_of_each_pair_and_on_average(study):
    said = rate(study, "anna").ratings
    others = said | dict.fromkeys(range(1, 11), Rating(verdict="uninterpretable"))
    save(study, "ben", said)
    save(study, "cleo", others)
    # By hand (Cohen, 1960): agreement beyond what the habits of both would give by chance.
    both = [[by[n].verdict for n in range(1, 41)] for by in (said, others)]
    agreed = sum(one == other for one, other in zip(*both, strict=True)) / 40
    chance = sum(both[0].count(verdict) * both[1].count(verdict) for verdict in VERDICTS) / 40**2
    expected = (agreed - chance) / (1 - chance)
    found = written(study).record["agreement"]
    for pair, kappa in zip(found["pairs"], (1, expected, expected), strict=True):
        assert pair["items"] == 40 and pair["verdict"] == pytest.approx(kappa)
    assert found["mean_kappa"]["person"]["verdict"] == pytest.approx((1 + 2 * expected) / 3)


def test_agreement_that_is_undefined_is_null(study):
    for rater in ("anna", "ben"):  # who say "maybe" of everything
        save(study, rater, {})
    found = written(study).record
    assert found["agreement"]["mean_kappa"]["person"] == {"verdict": None, "context_free": None}
    test = found["raters"]["anna"]["tests"]["interpretable"]
    assert test == {"odds_ratio": None, "p_value": 1.0}
