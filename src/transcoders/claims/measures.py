"""What decides each claim: an estimate, computed from committed tables alone.

Estimates that need more than a small table holds, such as every year's probabilities, are made by
the job that has them, with :mod:`transcoders.statistics`, and stand in its record.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pandas as pd

from transcoders.config import RATED_KINDS, Scale, Site
from transcoders.files import read_json, read_table
from transcoders.fronts import FrontGap
from transcoders.gaps import Pairs
from transcoders.interpretability.matching import matched_accuracy
from transcoders.layout import Layout
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


@dataclass(frozen=True)
class Evidence:
    """A scale and its tables."""

    scale: Scale
    layout: Layout

    def table(self, name: str) -> pd.DataFrame:
        """A CSV table in the folder of results."""
        return read_table(self.layout.results / name)

    def record(self, name: str) -> Any:
        """A JSON record in the folder of results."""
        return read_json(self.layout.results / name)

    def of_greater_than(self, key: str) -> Any:
        """What the greater-than study measured.

        Raises:
            Untestable: the study did not.
        """
        record = self.record("greater_than/summary.json")
        if record.get(key) is None:
            raise Untestable(f"greater_than/summary.json has no {key}")
        return record[key]


Values = TypeVar("Values", pd.DataFrame, np.ndarray)
Measure = Callable[[Evidence, Site | None], Found]
MEASURES: dict[str, Measure] = {}
TABLES: dict[str, tuple[str, ...]] = {}
"""The tables in ``results/<scale>/`` that each measure reads."""


def reads(*tables: str) -> Callable[[Measure], Measure]:
    """Register a measure with the tables that it reads."""

    def register(measure: Measure) -> Measure:
        MEASURES[measure.__name__] = measure
        TABLES[measure.__name__] = tables
        return measure

    return register


@reads("evaluation.csv", "evaluation_by_document.csv")
def front_gap(evidence: Evidence, site: Site | None) -> Found:
    """What a transcoder recovers of an MLP's worth at equal L0, minus what an SAE does."""
    assert site is not None
    pairs = _pairs(evidence)
    gap = _gap(pairs, site)
    return Found(pairs.level(gap), f"L0 from {gap.l0_low:.0f} to {gap.l0_high:.0f}")


@reads("evaluation.csv", "evaluation_by_document.csv")
def gap_of_largest_over_smallest_model(evidence: Evidence, _: Site | None) -> Found:
    """How much more transcoders gain in the largest model than in the smallest."""
    scale = evidence.scale
    sites = sorted(scale.sites, key=lambda site: scale.models[site.model].n_parameters())
    if len({site.model for site in sites}) < 2:
        raise Untestable("there is one model only; its layers are not sizes")
    # The same documents are held out for all models, so both share each resample.
    pairs = _pairs(evidence)
    gaps = [_gap(pairs, site) for site in (sites[-1], sites[0])]
    largest, smallest = pairs.draws(gaps).T
    return Found(pairs.estimate(largest - smallest, gaps[0]))


@reads("interpretability/ratings.csv")
def rated_interpretable(evidence: Evidence, _: Site | None) -> Found:
    """The share of features that raters call interpretable."""
    return _of_ratings(evidence, "interpretable")


@reads("interpretability/ratings.csv")
def rated_context_free(evidence: Evidence, _: Site | None) -> Found:
    """The share of features that raters call context-free."""
    return _of_ratings(evidence, "context_free")


@reads("interpretability/automatic.csv")
def rule_accuracy_gap(evidence: Evidence, _: Site | None) -> Found:
    """How much better a rule tells where features are active: transcoder minus SAE."""
    return _matched_accuracy(evidence, evidence.scale.rated("mlp_in_sae").name)


@reads("interpretability/automatic.csv")
def rule_accuracy_above_random(evidence: Evidence, _: Site | None) -> Found:
    """How much better a rule tells a transcoder's features than random directions."""
    return _matched_accuracy(evidence, evidence.scale.studied.baseline)


@reads("interpretability/automatic.csv")
def context_free_gap(evidence: Evidence, _: Site | None) -> Found:
    """The share of live features whose best examples are all on one token: transcoder minus SAE."""
    measures = evidence.table("interpretability/automatic.csv")
    shares = measures[measures["measure"] == "single_token_share"].groupby("dictionary")["value"]
    of = {name: (values == 1).to_numpy(float) for name, values in shares}
    first, second = (_present(of, evidence.scale.rated(kind).name) for kind in RATED_KINDS)
    return Found(difference_of_shares(first, second, "features"))


@reads("case_studies/systematic.csv")
def precision_of_de_embedding(evidence: Evidence, _: Site | None) -> Found:
    """How many of a feature's best examples are on the tokens that weights predict."""
    studies = _systematic(evidence)
    return Found(mean_of_features(studies, studies["precision"], seed=evidence.scale.seed))


@reads("case_studies/systematic.csv")
def precision_above_control(evidence: Evidence, _: Site | None) -> Found:
    """The same, minus how many are on the tokens that another feature's weights predict."""
    studies = _systematic(evidence)
    gain = studies["precision"] - studies["precision_control"]
    return Found(mean_of_features(studies, gain, seed=evidence.scale.seed))


@reads("circuits/*/paths.json")
def largest_completeness_error(evidence: Evidence, _: Site | None) -> Found:
    """How much of the target the attributions leave out, in the worst circuit."""
    found = evidence.layout.results.glob("circuits/*/paths.json")
    records = [read_json(path) for path in sorted(found)]
    worst = float(np.max([abs(record["completeness_error"]) for record in records]))
    if not np.isfinite(worst):
        raise Untestable("a circuit has no completeness error")
    return Found(exactly(worst))


@reads("greater_than/summary.json")
def lead_of_chosen_parts(evidence: Evidence, _: Site | None) -> Found:
    """By how much ablating the chosen MLP costs more than any other, and the head likewise."""
    found = evidence.of_greater_than("leads")
    notes = [
        f"{part['part']} ranks first of {part['candidates']} in {part['first']:.0%} of resamples"
        for part in found["parts"]
    ]
    layers = evidence.of_greater_than("layers_with_transcoder")
    notes.append(f"the rule chose among {len(layers) - 1} MLPs that have a transcoder")
    return Found(Estimate.of_record(found["lead"]), "; ".join(notes))


@reads("greater_than/summary.json")
def few_features_above_neurons(evidence: Evidence, _: Site | None) -> Found:
    """The mean difference between the two curves of Figure 4 where few units are kept."""
    found = evidence.of_greater_than("few_above_neurons")["transcoder"]
    return Found(Estimate.of_record(found), _chosen_mlp(evidence))


@reads("greater_than/summary.json")
def drop_of_harmful_feature(evidence: Evidence, _: Site | None) -> Found:
    """How much the metric falls on held-out prompts when the worst feature is added."""
    harmful = evidence.of_greater_than("harmful_feature")
    notes = f"feature {harmful['unit']}; {_chosen_mlp(evidence)}"
    return Found(Estimate.of_record(harmful["drop"]), notes)


@reads("greater_than/summary.json")
def step_after_own_years(evidence: Evidence, _: Site | None) -> Found:
    """How much each feature raises the years after its own, more than other features do."""
    return _own_above_others(evidence, "step")


@reads("greater_than/summary.json")
def agreement_with_own_years(evidence: Evidence, _: Site | None) -> Found:
    """How well a feature's de-embedding says on which years it is active, beyond the others'."""
    return _own_above_others(evidence, "agreement")


@reads("case_studies/table4.csv")
def share_of_successful_studies(evidence: Evidence, _: Site | None) -> Found:
    """The share of studies of features drawn at random that succeeded or mostly did."""
    studies = evidence.table("case_studies/table4.csv")
    studies = studies[studies["drawn"] & (studies["outcome"] != "other weights")]
    if studies.empty:
        raise Untestable("no feature drawn at random was studied on the weights of this run")
    found = studies["outcome"].isin(["success", "mostly"])
    return Found(share(int(found.sum()), len(found), "studies"))


def _pairs(evidence: Evidence) -> Pairs:
    tables = (evidence.table(f"{name}.csv") for name in ("evaluation", "evaluation_by_document"))
    return Pairs(*tables, seed=evidence.scale.seed)


def _gap(pairs: Pairs, site: Site) -> FrontGap:
    gap = pairs.as_headlines(site.name)
    if gap is None:
        raise Untestable(f"at {site.name} the two fronts share no range of L0")
    return gap


def _of_ratings(evidence: Evidence, column: str) -> Found:
    """A difference of shares between both kinds. A feature counts once, by its mean over raters.

    People and language models are never counted together. If a person has rated, only people count.
    """
    ratings = evidence.table("interpretability/ratings.csv")
    if ratings.empty:
        raise Untestable("nobody has rated features of these dictionaries yet")
    by_person = ratings["by"] == PERSON
    if by_person.any():
        ratings = ratings[by_person]
    of_feature = ratings.groupby(["kind", "feature"])[column].mean().groupby("kind")
    of = {kind: values.to_numpy(float) for kind, values in of_feature}
    first, second = (_present(of, kind) for kind in RATED_KINDS)
    raters = sorted(ratings["rater"].unique())
    note = f"one rater: {raters[0]}" if len(raters) == 1 else f"raters: {', '.join(raters)}"
    if not by_person.any():
        note = f"{NO_PERSON}; {note}, by {', '.join(ratings['by'].unique())}"
    return Found(difference_of_shares(first, second, "features"), note)


def _matched_accuracy(evidence: Evidence, other: str) -> Found:
    """A rule's accuracy, transcoder minus another dictionary, among features that are alike."""
    measures = evidence.table("interpretability/automatic.csv")
    values = measures.pivot(index=["dictionary", "feature"], columns="measure", values="value")
    for needed in ("frequency", "rule_accuracy"):
        if needed not in values:
            raise Untestable(f"interpretability/automatic.csv has no measure {needed}")
    values = values.dropna(subset=["rule_accuracy"])
    of = dict(iter(values.groupby("dictionary")))
    transcoder = evidence.scale.rated("transcoder").name
    found = matched_accuracy(_present(of, transcoder), _present(of, other))
    if found is None:
        raise Untestable("the two dictionaries have no features that are alike")
    return Found(found)


def _present(of: Mapping[Any, Values], name: str) -> Values:
    """What a table says of one dictionary or kind."""
    if name not in of:
        raise Untestable(f"the table has no feature of {name}")
    return of[name]


def _systematic(evidence: Evidence) -> pd.DataFrame:
    studies = evidence.table("case_studies/systematic.csv")
    studies = studies[studies["method"] == DE_EMBEDDING]
    if studies.empty:
        raise Untestable("no feature was studied blind")
    return studies


def _own_above_others(evidence: Evidence, quantity: str) -> Found:
    """A quantity with a feature's own weights, minus the same with the weights of others."""
    found = evidence.of_greater_than("own_above_others")[quantity]
    if found is None:
        raise Untestable(f"fewer than two features have a {quantity}")
    note = f"{found['own']:.2f} against {found['others']:.2f}; {_chosen_mlp(evidence)}"
    return Found(Estimate.of_record(found["gain"]), note)


def _chosen_mlp(evidence: Evidence) -> str:
    """Whose features a claim is about, and what that MLP is worth for the task."""
    layer, metric = evidence.of_greater_than("layer"), evidence.of_greater_than("metric")
    return (
        f"of mlp{layer}; the probability difference is {metric['original']['value']:.3f} with that "
        f"MLP and {metric['removed']['value']:.3f} without its neurons"
    )
