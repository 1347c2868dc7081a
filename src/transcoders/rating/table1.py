"""Table 1: how many features of either kind a rater could interpret, beside the paper's counts.

Raters are counted one by one and never added up: two ratings of one feature are not two features.
Of each count: its share with a Wilson interval (95%). Of the two kinds: Fisher's exact test of
interpretable against not, and of context-free against not. Of the raters: Cohen's kappa of each
pair, and the mean over pairs. Only raters who have finished are counted; without one, the result
says so and holds the paper's numbers alone.
"""

import math
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd
from scipy import stats

from transcoders.files import write_json, write_table
from transcoders.rating.records import VERDICTS, Rating, Record, is_rater, load_record
from transcoders.rating.study import RATED_KINDS, Study

CONTEXT_FREE = "context-free"
RATED = "rated"
ROWS = (*VERDICTS, CONTEXT_FREE, RATED)
TESTED = ("interpretable", CONTEXT_FREE)
SAID = ("verdict", "context_free")
"""What raters may agree on."""
Counts = Mapping[str, tuple[int, int]]
"""For each of :data:`ROWS`, how many features of each of :data:`RATED_KINDS`."""
PAPER: Counts = {
    "interpretable": (41, 38),
    "maybe": (8, 8),
    "uninterpretable": (1, 4),
    CONTEXT_FREE: (6, 16),
    RATED: (50, 50),
}
"""Table 1 as printed: Pythia-410M's layer 15, one rater; in the order of :data:`RATED_KINDS`."""
NO_RATINGS = "no ratings yet"


def read_ratings(folder: Path) -> dict[str, Record]:
    """The ratings of everyone who has begun, by rater.

    Args:
        folder: where ratings are kept; it need not exist.

    Raises:
        UserError: a file is damaged.
    """
    # Sorted, since folders are not; hidden files are those that a killed process left half-written.
    names = sorted(path.stem for path in folder.glob("*.json") if is_rater(path.stem))
    return {name: load_record(folder, name) for name in names}


def open_keys(study: Study, ratings: Mapping[str, Record]) -> dict[str, pd.DataFrame]:
    """The key for each rater who has finished.

    Raises:
        UserError: a rater has rated another study.
    """
    return {name: study.open(record) for name, record in ratings.items() if record.finished}


def table1(ratings: Mapping[str, Record], keys: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Rows ``rater, rating, transcoder, mlp_in_sae, paper_transcoder, paper_mlp_in_sae``.

    Args:
        ratings: of all raters.
        keys: of those who have finished, who are the ones counted.

    Returns:
        Counts. Of a rater, the first three ratings add up to ``rated``; ``context-free`` is among
        all of these. Without a rater, one block whose rater is "no ratings yet" and whose counts
        are missing.
    """
    counts: dict[str, Mapping[str, tuple[Any, Any]]] = {
        rater: _counts(ratings[rater], key) for rater, key in keys.items()
    }
    if not counts:
        counts = {NO_RATINGS: dict.fromkeys(ROWS, (pd.NA, pd.NA))}
    rows = [
        (rater, rating, *of_rater[rating], *PAPER[rating])
        for rater, of_rater in counts.items()
        for rating in ROWS
    ]
    columns = [*RATED_KINDS, *(f"paper_{kind}" for kind in RATED_KINDS)]
    table = pd.DataFrame(rows, columns=["rater", "rating", *columns])
    return table.astype(dict.fromkeys(columns, "Int64"))


def statistics(ratings: Mapping[str, Record], keys: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    """Shares, tests and agreement, fit for JSON: what is infinite or undefined is null.

    Args:
        ratings: of all raters.
        keys: of those who have finished.
    """
    finished = {rater: ratings[rater] for rater in keys}
    return {
        "text": f"ratings by {', '.join(finished)}" if finished else NO_RATINGS,
        "under_way": {
            rater: {"rated": record.n_rated, "of": record.n_items}
            for rater, record in ratings.items()
            if rater not in keys
        },
        "raters": {rater: _compare(_counts(ratings[rater], key)) for rater, key in keys.items()},
        "agreement": _agreement(finished),
        "paper": _compare(PAPER),
    }


def write_table1(study: Study, folder: Path, *, table: Path, record: Path) -> None:
    """Open the key for all who have finished, and write what they found.

    Args:
        study: that was rated.
        folder: where ratings are kept.
        table: of counts, CSV.
        record: of statistics, JSON.

    Raises:
        UserError: a file is damaged or of another study.
    """
    ratings = read_ratings(folder)
    keys = open_keys(study, ratings)
    write_table(table, table1(ratings, keys))
    write_json(record, statistics(ratings, keys))


def cohen_kappa(first: list[Any], second: list[Any]) -> float | None:
    """Agreement of two raters beyond what their habits alone would give (Cohen, 1960).

    (p_o - p_e) / (1 - p_e), with p_o the share of items on which they agree, and p_e what it would
    be if each spread the same ratings over the items at random.

    Returns:
        None where p_e is 1: both gave one and the same rating to everything.
    """
    n = len(first)
    agreed = sum(one == other for one, other in zip(first, second, strict=True)) / n
    chance = sum(first.count(value) * second.count(value) for value in set(first)) / n**2
    return None if chance == 1 else (agreed - chance) / (1 - chance)


def _counts(record: Record, key: pd.DataFrame) -> Counts:
    items = [key.loc[key["kind"] == kind, "item"] for kind in RATED_KINDS]

    def count(row: str, kind: int) -> int:
        return sum(_belongs(record.ratings[item], row) for item in items[kind])

    return {row: (count(row, 0), count(row, 1)) for row in ROWS}


def _belongs(rating: Rating, row: str) -> bool:
    if row == RATED:
        return True
    return rating.context_free if row == CONTEXT_FREE else rating.verdict == row


def _compare(counts: Counts) -> dict[str, Any]:
    totals = counts[RATED]
    shares = {
        row: {
            kind: _share(count, total)
            for kind, count, total in zip(RATED_KINDS, counts[row], totals, strict=True)
        }
        for row in ROWS
        if row != RATED
    }
    tests = {}
    for row in TESTED:
        table = [[count, total - count] for count, total in zip(counts[row], totals, strict=True)]
        test = stats.fisher_exact(table)
        tests[row] = {
            "odds_ratio": _finite(test.statistic),
            "p_value": float(test.pvalue),
        }
    return {"shares": shares, "tests": tests}


def _share(count: int, total: int) -> dict[str, float]:
    interval = stats.binomtest(count, total).proportion_ci(method="wilson")
    return {
        "count": count,
        "of": total,
        "share": count / total,
        "low": float(interval.low),
        "high": float(interval.high),
    }


def _agreement(records: Mapping[str, Record]) -> dict[str, Any] | None:
    pairs: list[dict[str, Any]] = []
    for (name, first), (other, second) in combinations(records.items(), 2):
        items = sorted(first.ratings.keys() & second.ratings.keys())
        kappas = {
            said: cohen_kappa(
                [getattr(first.ratings[item], said) for item in items],
                [getattr(second.ratings[item], said) for item in items],
            )
            for said in SAID
        }
        pairs.append({"raters": [name, other], "items": len(items), **kappas})
    if not pairs:
        return None
    defined = {said: [pair[said] for pair in pairs if pair[said] is not None] for said in SAID}
    means = {
        said: sum(kappas) / len(kappas) if kappas else None for said, kappas in defined.items()
    }
    return {"mean_kappa": means, "pairs": pairs}


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
