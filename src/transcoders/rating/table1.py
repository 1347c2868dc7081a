"""Table 1: how many features of each kind a rater could interpret, beside the paper's counts.

Each rater is counted separately. The counts of two raters are never added up, since two ratings of
one feature are not two features. A column says whether a person rated, or which language model.
Only raters who have finished are counted, and only if the dictionaries have the weights that they
rated: other processors round differently, so they train other ones. If nobody is counted, the
result says so and holds the paper's numbers alone. Reported are:

- for each count, its share with a Wilson interval (95%);
- for the two kinds, Fisher's exact test of interpretable against not, and of context-free against
  not;
- for the raters, Cohen's kappa of each pair, and the means over pairs of people and over pairs of
  runs of one language model.
"""

import math
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import pandas as pd
from scipy import stats
from sklearn.metrics import cohen_kappa_score

from transcoders.config import RATED_KINDS
from transcoders.files import write_json, write_table
from transcoders.layout import Layout
from transcoders.rating.records import VERDICTS, Record, load_record
from transcoders.rating.study import Study
from transcoders.statistics import share

CONTEXT_FREE = "context-free"
RATED = "rated"
PAPER = pd.DataFrame(
    {"transcoder": [41, 8, 1, 6, 50], "mlp_in_sae": [38, 8, 4, 16, 50]},
    index=[*VERDICTS, CONTEXT_FREE, RATED],
)
"""Table 1 as printed: layer 15 of Pythia-410M, one rater."""
NO_RATINGS = "no ratings yet"
SAID = ["verdict", "context_free"]
"""What raters say of a feature, and may agree on."""
COLUMNS = ["rater", "by", "kind", "feature", *SAID]
"""The columns of what all raters said: a row for each rater and feature."""


def write_table1(study: Callable[[], Study], layout: Layout) -> None:
    """Open the key for all who have finished, and write what they found.

    Args:
        study: gives the study that was rated. It is asked for only if somebody has finished.
        layout: where ratings are, if there are any. Counts go to ``table1.csv``, statistics to
            ``table1.json``, and what was said of each feature to ``ratings.csv``.

    Raises:
        UserError: a file is damaged or of another study.
    """
    # Hidden files are those that a killed process left half-written.
    names = sorted(path.stem for path in layout.ratings.glob("[!.]*.json"))
    records = [load_record(layout.ratings, name) for name in names]
    opened: list[pd.DataFrame] = []
    others: list[str] = []
    if done := [one for one in records if one.finished]:
        rated = study()
        others = [one.rater for one in done if one.weights != rated.weights]
        opened = [
            rated.open(one).assign(rater=one.rater, by=one.by)[COLUMNS]
            for one in done
            if one.rater not in others
        ]
    said = pd.concat(opened or [pd.DataFrame(columns=COLUMNS)])
    under_way = [one for one in records if not one.finished]
    write_table(layout.table1, table1(said))
    write_json(layout.table1.with_suffix(".json"), statistics(said, under_way, others))
    said.insert(4, "interpretable", said["verdict"] == "interpretable")
    write_table(layout.rated_features, said.drop(columns="verdict"))


def table1(said: pd.DataFrame) -> pd.DataFrame:
    """Rows ``rater, by, rating, transcoder, mlp_in_sae, paper_transcoder, paper_mlp_in_sae``.

    Args:
        said: rows of :data:`COLUMNS`.

    Returns:
        Counts. The first three ratings of a rater add up to ``rated``; ``context-free`` is counted
        among all of these. Without a rater, there is one block whose rater is "no ratings yet" and
        whose counts are missing.
    """
    counts: dict[Any, Any] = {rater: _counts(its) for rater, its in said.groupby(["rater", "by"])}
    blocks = counts or {(NO_RATINGS, ""): PAPER * pd.NA}
    beside = {rater: block.join(PAPER.add_prefix("paper_")) for rater, block in blocks.items()}
    return pd.concat(beside, names=["rater", "by", "rating"]).astype("Int64").reset_index()


def statistics(
    said: pd.DataFrame, under_way: Sequence[Record], others: Sequence[str]
) -> dict[str, Any]:
    """Shares, tests and agreement, fit for JSON: what is infinite or undefined is null.

    Args:
        said: rows of :data:`COLUMNS`, by those who have finished.
        under_way: the ratings of those who have not.
        others: who rated dictionaries with other weights.
    """
    by = dict(zip(said["rater"], said["by"], strict=True))
    return {
        "text": f"ratings by {', '.join(by)}" if by else NO_RATINGS,
        "under_way": {
            one.rater: {"rated": one.n_items - len(one.unrated), "of": one.n_items}
            for one in under_way
        },
        "other_weights": others,
        "by": by,
        "raters": {rater: _compare(_counts(its)) for rater, its in said.groupby("rater")},
        "agreement": _agreement(said),
        "paper": _compare(PAPER),
    }


def _counts(said: pd.DataFrame) -> pd.DataFrame:
    """How many features of each of :data:`RATED_KINDS` a rater gave each rating of ``PAPER``."""
    columns: dict[str, Any] = {verdict: said["verdict"] == verdict for verdict in VERDICTS}
    columns |= {CONTEXT_FREE: said["context_free"], RATED: True}
    return said[["kind"]].assign(**columns).groupby("kind").sum().T[list(RATED_KINDS)]


def _compare(counts: pd.DataFrame) -> dict[str, Any]:
    """Shares of both kinds with Wilson's intervals, and Fisher's exact tests."""
    of = counts.to_dict("index")
    n = of.pop(RATED)
    shares = {
        row: {kind: _share(count, n[kind]) for kind, count in by_kind.items()}
        for row, by_kind in of.items()
    }
    tests = {}
    for row in ("interpretable", CONTEXT_FREE):
        test = stats.fisher_exact([[of[row][kind], n[kind] - of[row][kind]] for kind in n])
        tests[row] = {"odds_ratio": _finite(test.statistic), "p_value": float(test.pvalue)}
    return {"shares": shares, "tests": tests}


def _share(count: int, total: int) -> dict[str, float]:
    found = share(count, total, "features")
    return {"count": count, "of": total, "share": found.value, "low": found.low, "high": found.high}


def _agreement(said: pd.DataFrame) -> dict[str, Any] | None:
    """Cohen's kappa of each pair of raters; means over people, and over each language model."""
    means = {
        by: {
            about: _finite(mean)
            for about, mean in pd.DataFrame(alike)[SAID].astype(float).mean().items()
        }
        for by, its in said.groupby("by", sort=False)
        if (alike := _pairs(its))
    }
    pairs = _pairs(said)
    return {"mean_kappa": means, "pairs": pairs} if pairs else None


def _pairs(said: pd.DataFrame) -> list[dict[str, Any]]:
    """Cohen's kappa of each pair of raters; null if both gave one rating to all."""
    return [
        {"raters": [name, other], "items": len(first)}
        | {about: _kappa(first[about], second[about]) for about in SAID}
        for (name, first), (other, second) in combinations(said.groupby("rater"), 2)
    ]


def _kappa(first: pd.Series, second: pd.Series) -> float | None:
    if pd.concat([first, second]).nunique() == 1:
        return None
    return float(cohen_kappa_score(first, second))


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
