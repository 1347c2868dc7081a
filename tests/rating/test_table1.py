"""Table 1 from ratings whose counts are known, against scipy and by hand."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pytest
from scipy import stats

from helpers_rating import make_study
from transcoders.rating.records import VERDICTS, Rating, Record, save_record
from transcoders.rating.study import Study, begin
from transcoders.rating.table1 import (
    open_keys,
    read_ratings,
    statistics,
    table1,
    write_table1,
)

COUNTS = {
    "transcoder": {"interpretable": 12, "maybe": 5, "uninterpretable": 3},
    "mlp_in_sae": {"interpretable": 7, "maybe": 9, "uninterpretable": 4},
}
CONTEXT_FREE = {"transcoder": 2, "mlp_in_sae": 6}


def rate(study: Study, folder: Path, rater: str, counts: Mapping[str, Mapping[str, int]]) -> Record:
    """Save finished ratings with so many of each."""
    begun = begin(study, folder, rater)
    blank = {number: Rating(verdict="maybe") for number in range(1, begun.n_items + 1)}
    key = study.open(begun.model_copy(update={"ratings": blank, "finished": True}))
    ratings = {}
    for kind, of_kind in counts.items():
        verdicts = [verdict for verdict, count in of_kind.items() for _ in range(count)]
        items = key.loc[key["kind"] == kind, "item"]
        for rank, (item, verdict) in enumerate(zip(items, verdicts, strict=True)):
            # The last ones, which are not all interpretable.
            context_free = rank >= len(verdicts) - CONTEXT_FREE[kind]
            ratings[item] = Rating(verdict=verdict, context_free=context_free)
    record = begun.model_copy(update={"ratings": ratings, "finished": True})
    save_record(folder, record)
    return record


def of(table: pd.DataFrame, column: str) -> dict[str, int]:
    return dict(zip(table["rating"], table[column], strict=True))


def test_counts_beside_the_papers(tmp_path: Path) -> None:
    study = make_study()
    rate(study, tmp_path, "anna", COUNTS)
    ratings = read_ratings(tmp_path)
    table = table1(ratings, open_keys(study, ratings))
    assert list(table) == [
        "rater", "rating", "transcoder", "mlp_in_sae", "paper_transcoder", "paper_mlp_in_sae"
    ]  # fmt: skip
    assert set(table["rater"]) == {"anna"}
    assert of(table, "transcoder") == COUNTS["transcoder"] | {"context-free": 2, "rated": 20}
    assert of(table, "mlp_in_sae") == COUNTS["mlp_in_sae"] | {"context-free": 6, "rated": 20}
    assert of(table, "paper_transcoder") == {
        "interpretable": 41, "maybe": 8, "uninterpretable": 1, "context-free": 6, "rated": 50
    }  # fmt: skip
    assert of(table, "paper_mlp_in_sae") == {
        "interpretable": 38, "maybe": 8, "uninterpretable": 4, "context-free": 16, "rated": 50
    }  # fmt: skip


def test_shares_and_tests(tmp_path: Path) -> None:
    study = make_study()
    rate(study, tmp_path, "anna", COUNTS)
    ratings = read_ratings(tmp_path)
    found = statistics(ratings, open_keys(study, ratings))
    assert found["text"] == "ratings by anna"
    assert found["agreement"] is None
    share = found["raters"]["anna"]["shares"]["interpretable"]["transcoder"]
    assert (share["count"], share["of"], share["share"]) == (12, 20, 0.6)
    # Wilson's interval, written out: (p + z²/2n ± z sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n).
    z, p, n = 1.959963984540054, 0.6, 20
    half = z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    low, high = ((p + z**2 / (2 * n) + sign * half) / (1 + z**2 / n) for sign in (-1, 1))
    assert share["low"] == pytest.approx(low)
    assert share["high"] == pytest.approx(high)
    tests = found["raters"]["anna"]["tests"]
    assert tests["interpretable"]["odds_ratio"] == pytest.approx((12 * 13) / (8 * 7))
    assert tests["interpretable"]["p_value"] == stats.fisher_exact([[12, 8], [7, 13]]).pvalue
    assert tests["context-free"]["odds_ratio"] == pytest.approx((2 * 14) / (18 * 6))
    assert tests["context-free"]["p_value"] == stats.fisher_exact([[2, 18], [6, 14]]).pvalue


def test_fisher_by_hand(tmp_path: Path) -> None:
    # Ours: 20 of 20 against 0 of 20. One table of C(40, 20) is as extreme on either side.
    study = make_study()
    extreme = {
        "transcoder": {"interpretable": 20, "maybe": 0, "uninterpretable": 0},
        "mlp_in_sae": {"interpretable": 0, "maybe": 20, "uninterpretable": 0},
    }
    rate(study, tmp_path, "anna", extreme)
    ratings = read_ratings(tmp_path)
    test = statistics(ratings, open_keys(study, ratings))["raters"]["anna"]["tests"]
    assert test["interpretable"]["p_value"] == pytest.approx(2 / math.comb(40, 20))
    assert test["interpretable"]["odds_ratio"] is None, "it is infinite"
    # The paper's, summed over the hypergeometric distribution.
    paper = statistics({}, {})["paper"]["tests"]

    def two_sided(first: int, second: int) -> float:
        def chance(count: int) -> float:
            ways = math.comb(50, count) * math.comb(50, first + second - count)
            return ways / math.comb(100, first + second)

        counts = range(max(0, first + second - 50), min(50, first + second) + 1)
        as_extreme = chance(first) * (1 + 1e-7)
        return sum(chance(count) for count in counts if chance(count) <= as_extreme)

    assert paper["interpretable"]["p_value"] == pytest.approx(two_sided(41, 38))
    assert paper["context-free"]["p_value"] == pytest.approx(two_sided(6, 16))
    assert paper["context-free"]["odds_ratio"] == pytest.approx((6 * 34) / (44 * 16))


def test_no_ratings_yet(tmp_path: Path) -> None:
    study = make_study()
    write_table1(
        study, tmp_path / "none", table=tmp_path / "table1.csv", record=tmp_path / "table1.json"
    )
    assert (tmp_path / "table1.csv").read_text() == (
        "rater,rating,transcoder,mlp_in_sae,paper_transcoder,paper_mlp_in_sae\n"
        "no ratings yet,interpretable,,,41,38\n"
        "no ratings yet,maybe,,,8,8\n"
        "no ratings yet,uninterpretable,,,1,4\n"
        "no ratings yet,context-free,,,6,16\n"
        "no ratings yet,rated,,,50,50\n"
    )
    record = json.loads((tmp_path / "table1.json").read_text())
    assert record.pop("paper")
    assert record == {
        "text": "no ratings yet", "under_way": {}, "raters": {}, "agreement": None
    }  # fmt: skip


def test_who_has_not_finished_is_not_counted(tmp_path: Path) -> None:
    study = make_study()
    folder = tmp_path / "ratings"
    begun = begin(study, folder, "bob")
    save_record(folder, begun.model_copy(update={"ratings": {3: Rating(verdict="interpretable")}}))
    (folder / ".bob.partial.json").write_text("{")
    table, record = tmp_path / "table1.csv", tmp_path / "table1.json"
    write_table1(study, folder, table=table, record=record)
    assert set(pd.read_csv(table)["rater"]) == {"no ratings yet"}
    found = json.loads(record.read_text())
    assert found["under_way"] == {"bob": {"rated": 1, "of": 40}}
    assert (found["text"], found["raters"]) == ("no ratings yet", {})

    rate(study, folder, "anna", COUNTS)
    write_table1(study, folder, table=table, record=record)
    assert set(pd.read_csv(table)["rater"]) == {"anna"}
    assert pd.read_csv(table)["transcoder"].tolist() == [12, 5, 3, 2, 20]
    assert json.loads(record.read_text())["under_way"] == {"bob": {"rated": 1, "of": 40}}


class TestAgreement:
    def test_of_each_pair_and_on_average(self, tmp_path: Path) -> None:
        study = make_study()
        anna = rate(study, tmp_path, "anna", COUNTS)
        same = begin(study, tmp_path, "ben").model_copy(
            update={"ratings": anna.ratings, "finished": True}
        )
        changed = {
            number: rating.model_copy(
                update={"verdict": "uninterpretable" if number <= 10 else rating.verdict}
            )
            for number, rating in anna.ratings.items()
        }
        other = begin(study, tmp_path, "cleo").model_copy(
            update={"ratings": changed, "finished": True}
        )
        for record in (same, other):
            save_record(tmp_path, record)
        begin(study, tmp_path, "not-done")
        ratings = read_ratings(tmp_path)
        assert list(ratings) == ["anna", "ben", "cleo", "not-done"]
        found = statistics(ratings, open_keys(study, ratings))["agreement"]
        # By hand (Cohen, 1960): agreement beyond what the habits of both would give by chance.
        both = [[by[n].verdict for n in range(1, 41)] for by in (anna.ratings, changed)]
        agreed = sum(one == other for one, other in zip(*both, strict=True)) / 40
        chance = sum(both[0].count(said) * both[1].count(said) for said in VERDICTS) / 40**2
        expected = (agreed - chance) / (1 - chance)
        assert [(pair["raters"], pair["items"]) for pair in found["pairs"]] == [
            (["anna", "ben"], 40), (["anna", "cleo"], 40), (["ben", "cleo"], 40)
        ]  # fmt: skip
        assert [pair["verdict"] for pair in found["pairs"]] == pytest.approx(
            [1, expected, expected]
        )
        assert found["mean_kappa"]["verdict"] == pytest.approx((1 + 2 * expected) / 3)
        assert found["mean_kappa"]["context_free"] == pytest.approx(1)
        table = table1(ratings, open_keys(study, ratings))
        assert list(table["rater"].unique()) == ["anna", "ben", "cleo"]

    def test_that_is_undefined_is_null(self, tmp_path: Path) -> None:
        study = make_study()
        for rater in ("anna", "ben"):
            begun = begin(study, tmp_path, rater)
            ratings = {number: Rating(verdict="maybe") for number in range(1, 41)}
            save_record(tmp_path, begun.model_copy(update={"ratings": ratings, "finished": True}))
        record = tmp_path / "out" / "table1.json"
        write_table1(study, tmp_path, table=tmp_path / "out" / "table1.csv", record=record)
        found = json.loads(record.read_text(), parse_constant=pytest.fail)
        assert found["agreement"]["mean_kappa"] == {"verdict": None, "context_free": None}
        assert found["raters"]["anna"]["tests"]["interpretable"] == {
            "odds_ratio": None, "p_value": 1.0
        }  # fmt: skip
