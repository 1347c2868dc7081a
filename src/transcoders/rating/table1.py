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
from sklearn.metrics import cohen_kappa_score

from transcoders.config import Kind
from transcoders.files import write_json, write_table
from transcoders.rating.records import VERDICTS, Record, load_record
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
    # Hidden files are those that a killed process left half-written.
    names = sorted(path.stem for path in folder.glob("[!.]*.json"))
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
    missing = {NO_RATINGS: dict.fromkeys(ROWS, (pd.NA, pd.NA))}
    counts = {rater: _counts(ratings[rater], key) for rater, key in keys.items()} or missing
    columns = [*RATED_KINDS, *(f"paper_{kind}" for kind in RATED_KINDS)]
    table = pd.DataFrame(
        [
            (rater, row, *of_rater[row], *PAPER[row])
            for rater, of_rater in counts.items()
            for row in ROWS
        ],
        columns=["rater", "rating", *columns],
    )
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
            rater: {"rated": record.n_items - len(record.unrated), "of": record.n_items}
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


def _counts(record: Record, key: pd.DataFrame) -> Counts:
    def count(row: str, kind: Kind) -> int:
        ratings = [record.ratings[item] for item in key.loc[key["kind"] == kind, "item"]]
        if row == CONTEXT_FREE:
            return sum(rating.context_free for rating in ratings)
        return len(ratings) if row == RATED else sum(rating.verdict == row for rating in ratings)

    return {row: (count(row, RATED_KINDS[0]), count(row, RATED_KINDS[1])) for row in ROWS}


def _compare(counts: Counts) -> dict[str, Any]:
    """Shares of both kinds with Wilson's intervals, and Fisher's exact tests."""
    n = counts[RATED]
    shares = {
        row: dict(zip(RATED_KINDS, map(_share, counts[row], n), strict=True))
        for row in ROWS
        if row != RATED
    }
    tests = {}
    for row in TESTED:
        of = counts[row]
        test = stats.fisher_exact([[of[0], n[0] - of[0]], [of[1], n[1] - of[1]]])
        tests[row] = {"odds_ratio": _finite(test.statistic), "p_value": float(test.pvalue)}
    return {"shares": shares, "tests": tests}


def _share(count: int, total: int) -> dict[str, float]:
    low, high = map(float, stats.binomtest(count, total).proportion_ci(method="wilson"))
    return {"count": count, "of": total, "share": count / total, "low": low, "high": high}


def _agreement(records: Mapping[str, Record]) -> dict[str, Any] | None:
    """Cohen's kappa of each pair of raters, and the mean; null if both gave one rating to all."""
    pairs: list[dict[str, Any]] = []
    for (name, first), (other, second) in combinations(records.items(), 2):
        items = sorted(first.ratings.keys() & second.ratings.keys())
        pair: dict[str, Any] = {"raters": [name, other], "items": len(items)}
        for said in SAID:
            both = [[getattr(of.ratings[item], said) for item in items] for of in (first, second)]
            alike = len({*both[0], *both[1]}) == 1
            pair[said] = None if alike else float(cohen_kappa_score(*both))
        pairs.append(pair)
    if not pairs:
        return None
    means = {said: pd.Series([pair[said] for pair in pairs], dtype=float).mean() for said in SAID}
    return {"mean_kappa": {said: _finite(mean) for said, mean in means.items()}, "pairs": pairs}


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
