"""What decides each claim: an estimate, computed from committed tables alone.

A measure takes the scale and the tables that it reads. The rest of the measures are in
:mod:`transcoders.claims.greater_than` and :mod:`transcoders.claims.gaps`. Estimates that need more
than a small table holds, such as every year's probabilities, are made by the job that has them,
with :mod:`transcoders.statistics`, and stand in its record.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from transcoders.config import RATED_KINDS, Scale
from transcoders.interpretability.matching import matched_accuracy
from transcoders.rating.records import NO_PERSON, PERSON
from transcoders.statistics import (
    Estimate,
    difference_of_shares,
    exactly,
    mean_of_features,
    share,
)

DE_EMBEDDING = "layer 0, linear"
"""How the paper tells from weights alone which tokens a feature is about."""


class Untestable(Exception):  # noqa: N818  (it is an outcome)
    """Why a scale cannot test a claim."""


class Found(NamedTuple):
    """What a measure found."""

    estimate: Estimate
    note: str = ""
    """What a reader should know beside the numbers."""


Measure = Callable[..., Found]
"""Of a scale and tables; and of a ``site``, if every site gets a verdict of its own."""
MEASURES: dict[str, Measure] = {}
TABLES: dict[str, tuple[str, ...]] = {}
"""The files of ``results/<scale>/`` that each measure is given: CSV tables and JSON records. A name
with a star stands for the list of all such files."""


def reads(*tables: str) -> Callable[[Measure], Measure]:
    """Register a measure with the tables that it is given, after the scale."""

    def register(measure: Measure) -> Measure:
        MEASURES[measure.__name__] = measure
        TABLES[measure.__name__] = tables
        return measure

    return register


@reads("interpretability/ratings.csv")
def rated_interpretable(_: Scale, ratings: pd.DataFrame) -> Found:
    """The share of features that raters call interpretable."""
    return _of_ratings(ratings, "interpretable")


@reads("interpretability/ratings.csv")
def rated_context_free(_: Scale, ratings: pd.DataFrame) -> Found:
    """The share of features that raters call context-free."""
    return _of_ratings(ratings, "context_free")


@reads("interpretability/automatic.csv")
def rule_accuracy_gap(scale: Scale, measures: pd.DataFrame) -> Found:
    """How much better a rule tells where features are active: transcoder minus SAE."""
    return _matched_accuracy(scale, measures, scale.rated("mlp_in_sae").name)


@reads("interpretability/automatic.csv")
def rule_accuracy_above_random(scale: Scale, measures: pd.DataFrame) -> Found:
    """How much better a rule tells a transcoder's features than random directions."""
    return _matched_accuracy(scale, measures, scale.studied.baseline)


@reads("interpretability/automatic.csv")
def context_free_gap(scale: Scale, measures: pd.DataFrame) -> Found:
    """The share of live features whose best examples are all on one token: transcoder minus SAE."""
    shares = measures[measures["measure"] == "single_token_share"]
    names = [scale.rated(kind).name for kind in RATED_KINDS]
    first, second = (
        (_of(shares, "dictionary", name)["value"] == 1).to_numpy(float) for name in names
    )
    return Found(difference_of_shares(first, second, "features"))


@reads("case_studies/systematic.csv")
def precision_of_de_embedding(scale: Scale, studies: pd.DataFrame) -> Found:
    """How many of a feature's best examples are on the tokens that weights predict."""
    studies = _of_de_embedding(studies)
    return Found(mean_of_features(studies, studies["precision"], seed=scale.seed))


@reads("case_studies/systematic.csv")
def precision_above_control(scale: Scale, studies: pd.DataFrame) -> Found:
    """The same, minus how many are on the tokens that another feature's weights predict."""
    studies = _of_de_embedding(studies)
    gain = studies["precision"] - studies["precision_control"]
    return Found(mean_of_features(studies, gain, seed=scale.seed))


@reads("circuits/*/paths.json")
def largest_completeness_error(_: Scale, circuits: list[Any]) -> Found:
    """How much of the target the attributions leave out, in the worst circuit."""
    worst = float(np.max([abs(circuit["completeness_error"]) for circuit in circuits]))
    if not np.isfinite(worst):
        raise Untestable("a circuit has no completeness error")
    return Found(exactly(worst))


@reads("case_studies/table4.csv")
def share_of_successful_studies(_: Scale, studies: pd.DataFrame) -> Found:
    """The share of studies of features drawn at random that succeeded or mostly did."""
    studies = studies[studies["drawn"] & (studies["outcome"] != "other weights")]
    if studies.empty:
        raise Untestable("no feature drawn at random was studied on the weights of this run")
    found = studies["outcome"].isin(["success", "mostly"])
    return Found(share(int(found.sum()), len(found), "studies"))


def _of_ratings(ratings: pd.DataFrame, column: str) -> Found:
    """A difference of shares between both kinds. A feature counts once, by its mean over raters.

    People and language models are never counted together. If a person has rated, only people count.
    """
    if ratings.empty:
        raise Untestable("nobody has rated features of these dictionaries yet")
    by_person = ratings["by"] == PERSON
    if by_person.any():
        ratings = ratings[by_person]
    features = ratings.groupby(["kind", "feature"])[[column]].mean().reset_index()
    first, second = (_of(features, "kind", kind)[column].to_numpy(float) for kind in RATED_KINDS)
    raters = sorted(ratings["rater"].unique())
    note = f"one rater: {raters[0]}" if len(raters) == 1 else f"raters: {', '.join(raters)}"
    if not by_person.any():
        note = f"{NO_PERSON}; {note}, by {', '.join(ratings['by'].unique())}"
    return Found(difference_of_shares(first, second, "features"), note)


def _matched_accuracy(scale: Scale, measures: pd.DataFrame, other: str) -> Found:
    """A rule's accuracy, transcoder minus another dictionary, among features that are alike."""
    values = measures.pivot(index=["dictionary", "feature"], columns="measure", values="value")
    for needed in ("frequency", "rule_accuracy"):
        if needed not in values:
            raise Untestable(f"interpretability/automatic.csv has no measure {needed}")
    values = values.dropna(subset=["rule_accuracy"]).reset_index()
    names = scale.rated("transcoder").name, other
    found = matched_accuracy(*(_of(values, "dictionary", name) for name in names))
    if found is None:
        raise Untestable("the two dictionaries have no features that are alike")
    return Found(found)


def _of(table: pd.DataFrame, column: str, name: str) -> pd.DataFrame:
    """What a table says of one dictionary or kind."""
    rows = table[table[column] == name]
    if rows.empty:
        raise Untestable(f"the table has no feature of {name}")
    return rows


def _of_de_embedding(studies: pd.DataFrame) -> pd.DataFrame:
    studies = studies[studies["method"] == DE_EMBEDDING]
    if studies.empty:
        raise Untestable("no feature was studied blind")
    return studies
