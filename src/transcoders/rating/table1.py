"""Table 1: how many features of each kind a rater could interpret, beside the paper's counts.

Each rater is counted separately. The counts of two raters are never added up, since two ratings of
one feature are not two features. A column says whether a person rated, or which language model.
Only raters who have finished are counted, and only if the dictionaries have the weights that they
rated: other processors round otherwise, and train others. If nobody is counted, the result says so
and holds the paper's numbers alone. Reported are:

- for each count, its share with a Wilson interval (95%);
- for the two kinds, Fisher's exact test of interpretable against not, and of context-free against
  not;
- for the raters, Cohen's kappa of each pair, and the means over pairs of people and over pairs of
  runs of one language model.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd
from scipy import stats
from sklearn.metrics import cohen_kappa_score

from transcoders.config import RATED_KINDS
from transcoders.files import write_json, write_table
from transcoders.rating.records import VERDICTS, Record, load_record
from transcoders.rating.study import Study
from transcoders.statistics import share

CONTEXT_FREE = "context-free"
RATED = "rated"
ROWS = (*VERDICTS, CONTEXT_FREE, RATED)
TESTED = ("interpretable", CONTEXT_FREE)
SAID = ("verdict", "context_free")
"""What raters may agree on."""
PAPER = pd.DataFrame(
    {"transcoder": [41, 8, 1, 6, 50], "mlp_in_sae": [38, 8, 4, 16, 50]}, index=pd.Index(ROWS)
)
"""Table 1 as printed: layer 15 of Pythia-410M, one rater."""
NO_RATINGS = "no ratings yet"


def write_table1(
    study: Callable[[], Study], folder: Path, *, table: Path, record: Path, features: Path
) -> None:
    """Open the key for all who have finished, and write what they found.

    Args:
        study: gives the study that was rated. It is asked for only if somebody has finished.
        folder: where ratings are kept; it need not exist.
        table: where the counts go, as CSV.
        record: where the statistics go, as JSON.
        features: where what was said of each feature goes, as CSV.

    Raises:
        UserError: a file is damaged or of another study.
    """
    # Hidden files are those that a killed process left half-written.
    names = sorted(path.stem for path in folder.glob("[!.]*.json"))
    ratings = {name: load_record(folder, name) for name in names}
    finished, others = {}, []
    if done := {name: one for name, one in ratings.items() if one.finished}:
        rated = study()
        others = [name for name, one in done.items() if not rated.is_about(one)]
        counted = {name: one for name, one in done.items() if name not in others}
        finished = {name: rated.open(one).assign(by=one.by) for name, one in counted.items()}
    write_table(table, table1(finished))
    write_json(record, statistics(ratings, finished, others))
    write_table(features, by_feature(finished))


def by_feature(finished: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Rows ``rater, by, kind, feature, interpretable, context_free``: all that raters said."""
    said = [
        of_rater.assign(rater=rater, interpretable=of_rater["verdict"] == "interpretable")
        for rater, of_rater in finished.items()
    ]
    columns = ["rater", "by", "kind", "feature", "interpretable", "context_free"]
    return pd.concat(said)[columns] if said else pd.DataFrame(columns=columns)


def table1(finished: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Rows ``rater, by, rating, transcoder, mlp_in_sae, paper_transcoder, paper_mlp_in_sae``.

    Args:
        finished: what each rater who has finished said, from :meth:`Study.open`, and ``by``.

    Returns:
        Counts. The first three ratings of a rater add up to ``rated``; ``context-free`` is counted
        among all of these. Without a rater, there is one block whose rater is "no ratings yet" and
        whose counts are missing.
    """
    counts = {(rater, said["by"].iloc[0]): _counts(said) for rater, said in finished.items()}
    beside = {
        rater: of_rater.join(PAPER.add_prefix("paper_"))
        for rater, of_rater in (counts or {(NO_RATINGS, ""): PAPER * pd.NA}).items()
    }
    return pd.concat(beside, names=["rater", "by", "rating"]).astype("Int64").reset_index()


def statistics(
    ratings: Mapping[str, Record], finished: Mapping[str, pd.DataFrame], others: Sequence[str]
) -> dict[str, Any]:
    """Shares, tests and agreement, fit for JSON: what is infinite or undefined is null.

    Args:
        ratings: the ratings of everyone who has begun, by rater.
        finished: what those said who have finished, from :meth:`Study.open`.
        others: who rated dictionaries with other weights.
    """
    return {
        "text": f"ratings by {', '.join(finished)}" if finished else NO_RATINGS,
        "under_way": {
            rater: {"rated": record.n_items - len(record.unrated), "of": record.n_items}
            for rater, record in ratings.items()
            if rater not in (*finished, *others)
        },
        "other_weights": [*others],
        "by": {rater: ratings[rater].by for rater in finished},
        "raters": {rater: _compare(_counts(said)) for rater, said in finished.items()},
        "agreement": _agreement(finished),
        "paper": _compare(PAPER),
    }


def _counts(said: pd.DataFrame) -> pd.DataFrame:
    """For each of :data:`ROWS`, how many features of each of :data:`RATED_KINDS`."""
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
    for row in TESTED:
        test = stats.fisher_exact([[of[row][kind], n[kind] - of[row][kind]] for kind in n])
        tests[row] = {"odds_ratio": _finite(test.statistic), "p_value": float(test.pvalue)}
    return {"shares": shares, "tests": tests}


def _share(count: int, total: int) -> dict[str, float]:
    found = share(count, total, "features")
    return {"count": count, "of": total, "share": found.value, "low": found.low, "high": found.high}


def _agreement(finished: Mapping[str, pd.DataFrame]) -> dict[str, Any] | None:
    """Cohen's kappa of each pair of raters, and means; null if both gave one rating to all.

    Means are over pairs of people, and over pairs of runs of each language model.
    """
    pairs: list[dict[str, Any]] = []
    alike: dict[str, list[dict[str, Any]]] = {}
    for (name, first), (other, second) in combinations(finished.items(), 2):
        pair = {"raters": [name, other], "items": len(first)}
        pair |= {said: _kappa(first[said], second[said]) for said in SAID}
        pairs.append(pair)
        if (by := first["by"].iloc[0]) == second["by"].iloc[0]:
            alike.setdefault(by, []).append(pair)
    means = {by: _means(of) for by, of in alike.items()}
    return {"mean_kappa": means, "pairs": pairs} if pairs else None


def _means(pairs: list[dict[str, Any]]) -> dict[str, float | None]:
    return {
        said: _finite(pd.Series([pair[said] for pair in pairs], dtype=float).mean())
        for said in SAID
    }


def _kappa(first: pd.Series, second: pd.Series) -> float | None:
    if pd.concat([first, second]).nunique() == 1:
        return None
    return float(cohen_kappa_score(first, second))


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
