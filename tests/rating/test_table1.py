"""Table 1 from ratings whose counts are known, against scipy and by hand."""

import json
import re
from typing import Any, NamedTuple

import pandas as pd
import pytest
from scipy import stats

from helpers_rating import finished, make_study
from transcoders.errors import UserError
from transcoders.layout import Layout
from transcoders.rating.records import VERDICTS, Rating, save_record
from transcoders.rating.study import Study, begin
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


class Written(NamedTuple):
    """What was written of all ratings."""

    table: pd.DataFrame
    record: dict[str, Any]
    features: pd.DataFrame


@pytest.fixture(scope="module")
def study():
    return make_study()


@pytest.fixture(autouse=True)
def inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def written(study):
    write_table1(lambda: study or pytest.fail("not needed"), LAYOUT)
    # What is infinite or undefined must not be in JSON.
    record = LAYOUT.table1.with_suffix(".json").read_text()
    said = json.loads(record, parse_constant=pytest.fail)
    return Written(pd.read_csv(LAYOUT.table1), said, pd.read_csv(LAYOUT.rated_features))


def rate(study, rater):
    """Save finished ratings with as many of each as :data:`COUNTS` says."""
    begun = finished(study, LAYOUT.ratings, rater)
    key = study.open(begun)
    ratings = {}
    for kind, of_kind in COUNTS.items():
        verdicts = [verdict for verdict, count in of_kind.items() for _ in range(count)]
        items = key.loc[key["kind"] == kind, "item"]
        for rank, (item, verdict) in enumerate(zip(items, verdicts, strict=True)):
            # The last ones, which are not all interpretable.
            context_free = rank >= len(verdicts) - CONTEXT_FREE[kind]
            ratings[item] = Rating(verdict=verdict, context_free=context_free)
    record = begun.model_copy(update={"ratings": ratings})
    save_record(LAYOUT.ratings, record)
    return record


def test_counts_beside_the_papers_and_what_each_rater_said_of_each_feature(study):
    for rater in ("anna", "ben"):
        rate(study, rater)
    table, _, features = written(study)
    assert table.pop("rater").tolist() == ["anna"] * 5 + ["ben"] * 5
    assert set(table.pop("by")) == {"person"}
    assert table[:5].equals(table[5:].reset_index(drop=True))
    table = table[:5].set_index("rating")
    assert list(table) == ["transcoder", "mlp_in_sae", "paper_transcoder", "paper_mlp_in_sae"]
    for kind, counts in COUNTS.items():
        expected = counts | {"context-free": CONTEXT_FREE[kind], "rated": 20}
        assert table[kind].to_dict() == expected
    assert table["paper_transcoder"].tolist() == [41, 8, 1, 6, 50]
    assert table["paper_mlp_in_sae"].tolist() == [38, 8, 4, 16, 50]
    assert list(features) == ["rater", "by", "kind", "feature", "interpretable", "context_free"]
    assert len(features) == 2 * 40
    for (_, kind), said in features.groupby(["rater", "kind"]):
        assert said["feature"].is_unique
        assert said["interpretable"].sum() == COUNTS[kind]["interpretable"]
        assert said["context_free"].sum() == CONTEXT_FREE[kind]


def test_shares_and_tests(study):
    rate(study, "anna")
    found = written(study).record
    assert (found["text"], found["agreement"]) == ("ratings by anna", None)
    shares, tests = found["raters"]["anna"]["shares"], found["raters"]["anna"]["tests"]
    first = shares["interpretable"]["transcoder"]
    wilson = stats.binomtest(12, 20).proportion_ci(method="wilson")
    assert first == {
        "count": 12, "of": 20, "share": 0.6,
        "low": pytest.approx(wilson.low), "high": pytest.approx(wilson.high),
    }  # fmt: skip
    assert tests["interpretable"]["odds_ratio"] == pytest.approx((12 * 13) / (8 * 7))
    assert tests["context-free"]["odds_ratio"] == pytest.approx((2 * 14) / (18 * 6))
    assert tests["context-free"]["p_value"] == stats.fisher_exact([[2, 18], [6, 14]]).pvalue


def test_no_ratings_yet_and_no_study_is_needed():
    found = written(None)
    assert LAYOUT.table1.read_text() == (
        "rater,by,rating,transcoder,mlp_in_sae,paper_transcoder,paper_mlp_in_sae\n"
        "no ratings yet,,interpretable,,,41,38\n"
        "no ratings yet,,maybe,,,8,8\n"
        "no ratings yet,,uninterpretable,,,1,4\n"
        "no ratings yet,,context-free,,,6,16\n"
        "no ratings yet,,rated,,,50,50\n"
    )
    assert found.record.pop("paper") and found.features.empty
    expected = {"text": "no ratings yet", "under_way": {}, "raters": {}, "agreement": None}
    assert found.record == expected | {"by": {}, "other_weights": []}
    assert describe_ratings(found.record) == "**No person rated.**"
    # The paper's row stands alone.
    assert re.findall(r"\d+ / \d+", shown(found.table)) == PAPERS


def shown(table):
    return ratings_table(table.astype(object).fillna("").astype(str))


def test_people_and_language_models_are_told_apart(study):
    for rater in ("anna", "ben", "parrot", "polly"):
        changes: dict[str, Any] = {}
        record = rate(study, rater)
        if rater in ("parrot", "polly"):
            changes["language_model"] = "a parrot"
        if rater == "polly":
            same = Rating(verdict="maybe", context_free=True)
            changes["ratings"] = dict.fromkeys(record.ratings, same)
        save_record(LAYOUT.ratings, record.model_copy(update=changes))
    found = written(study)
    assert dict(zip(found.table["rater"], found.table["by"], strict=True)) == {
        "anna": "person", "ben": "person", "parrot": "a parrot", "polly": "a parrot",
    }  # fmt: skip
    said = describe_ratings(found.record)
    assert "People who rated: anna, ben." in said
    assert "Language models rated: parrot (a parrot), polly (a parrot)." in said
    agreed = "(Cohen's κ, mean over pairs): {0} on the rating, {0} on context-free"
    assert f"between people {agreed.format('1.00')}" in said
    assert f"between runs of a parrot {agreed.format('0.00')}" in said
    ours = ["12 / 7", "5 / 9", "3 / 4", "2 / 6", "20 / 20"]
    polly = ["0 / 0", "20 / 20", "0 / 0", "20 / 20", "20 / 20"]
    assert re.findall(r"\d+ / \d+", shown(found.table)) == [*ours, *ours, *ours, *polly, *PAPERS]
    with pytest.raises(UserError, match=r"begun by person.*choose another name"):
        begin(study, LAYOUT.ratings, "anna", "a parrot")


def test_who_has_not_finished_is_not_counted(study):
    begun = begin(study, LAYOUT.ratings, "bob")
    said = {3: Rating(verdict="interpretable")}
    save_record(LAYOUT.ratings, begun.model_copy(update={"ratings": said}))
    (LAYOUT.ratings / ".bob.partial.json").write_text("{")
    for rater in ("no ratings yet", "anna"):
        if rater == "anna":
            rate(study, rater)
        found = written(study)
        assert set(found.table["rater"]) == {rater}
        assert found.record["under_way"] == {"bob": {"rated": 1, "of": 40}}


def test_ratings_of_other_weights_are_kept_and_not_counted(study):
    rate(study, "anna")
    found = written(Study(study.items, ["a", "c"], study._key))
    assert set(found.table["rater"]) == {"no ratings yet"} and found.features.empty
    assert (found.record["other_weights"], found.record["under_way"]) == (["anna"], {})
    assert "rated dictionaries with other weights: anna." in describe_ratings(found.record)


def test_agreement_of_each_pair_and_on_average(study):
    said = rate(study, "anna").ratings
    others = {n: Rating(verdict="uninterpretable") if n <= 10 else said[n] for n in said}
    for rater, ratings in (("ben", said), ("cleo", others)):
        record = finished(study, LAYOUT.ratings, rater)
        save_record(LAYOUT.ratings, record.model_copy(update={"ratings": ratings}))
    # By hand (Cohen, 1960): agreement beyond what the habits of both would give by chance.
    both = [[by[n].verdict for n in range(1, 41)] for by in (said, others)]
    agreed = sum(one == other for one, other in zip(*both, strict=True)) / 40
    chance = sum(both[0].count(verdict) * both[1].count(verdict) for verdict in VERDICTS) / 40**2
    expected = (agreed - chance) / (1 - chance)
    found = written(study).record["agreement"]
    assert [(pair["raters"], pair["items"], pair["verdict"]) for pair in found["pairs"]] == [
        (["anna", "ben"], 40, 1),
        (["anna", "cleo"], 40, pytest.approx(expected)),
        (["ben", "cleo"], 40, pytest.approx(expected)),
    ]
    assert found["mean_kappa"]["person"]["verdict"] == pytest.approx((1 + 2 * expected) / 3)


def test_agreement_that_is_undefined_is_null(study):
    for rater in ("anna", "ben"):
        save_record(LAYOUT.ratings, finished(study, LAYOUT.ratings, rater))
    found = written(study).record
    assert found["agreement"]["mean_kappa"]["person"] == {"verdict": None, "context_free": None}
    for rater in ("anna", "ben"):  # who agree on verdicts, and never say context-free
        record = finished(study, LAYOUT.ratings, rater)
        ratings = record.ratings | {1: Rating(verdict="interpretable")}
        save_record(LAYOUT.ratings, record.model_copy(update={"ratings": ratings}))
    found = written(study).record
    assert found["agreement"]["mean_kappa"]["person"] == {"verdict": 1.0, "context_free": None}
    test = found["raters"]["anna"]["tests"]["interpretable"]
    assert test == {"odds_ratio": None, "p_value": 1.0}
