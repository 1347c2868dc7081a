"""What decides each claim: a number with a 95% interval, computed from committed tables alone."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd
from scipy import stats

from transcoders.config import Kind, Scale, Site
from transcoders.files import read_json, read_table
from transcoders.fronts import front_gap as gap_of_fronts
from transcoders.layout import Layout
from transcoders.rating.table1 import NO_RATINGS

FIRST_FEATURES = 20
"""How many features of Figure 5 count, by variance."""
RATED_KINDS: tuple[Kind, Kind] = ("transcoder", "mlp_in_sae")
DE_EMBEDDING = "layer 0, linear"
"""How the paper tells from weights alone which tokens a feature is about."""


class Measured(NamedTuple):
    """A value with its 95% interval."""

    value: float
    low: float
    high: float

    @classmethod
    def exactly(cls, value: float) -> "Measured":
        """A value that has no interval."""
        return cls(value, value, value)


class Untestable(NamedTuple):
    """Why a scale cannot test a claim."""

    reason: str


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


Outcome = Measured | Untestable
Measure = Callable[[Evidence, Site | None], Outcome]


def front_gap(evidence: Evidence, site: Site | None) -> Outcome:
    """Cross entropy at equal L0: transcoder minus SAE on the MLP's output."""
    assert site is not None
    gap = gap_of_fronts(
        evidence.table("evaluation.csv"), evidence.table("evaluation_by_document.csv"), site.name
    )
    if gap is None:
        return Untestable("the two fronts share no range of L0")
    return Measured(gap.mean, gap.low, gap.high)


def gap_of_largest_over_smallest_model(evidence: Evidence, _: Site | None) -> Outcome:
    """How much larger the advantage of transcoders is in the largest model than in the smallest."""
    scale = evidence.scale
    sites = sorted(scale.sites, key=lambda site: scale.models[site.model].n_parameters())
    if len({site.model for site in sites}) < 2:
        return Untestable("there is one model only; its layers are not sizes")
    gaps = [front_gap(evidence, site) for site in (sites[-1], sites[0])]
    untestable = [gap for gap in gaps if isinstance(gap, Untestable)]
    if untestable:
        return untestable[0]
    largest, smallest = (Measured(*gap) for gap in gaps)
    return _difference(smallest, largest)


def rated_interpretable(evidence: Evidence, _: Site | None) -> Outcome:
    """The share of rated features that people call interpretable, over all raters."""
    table = evidence.table("interpretability/table1.csv")
    table = table[(table["rater"] != NO_RATINGS) & table["transcoder"].notna()]
    if table.empty:
        return Untestable("nobody has rated features yet")
    verdicts = table[table["rating"].isin(["interpretable", "maybe", "uninterpretable"])]
    found = verdicts[verdicts["rating"] == "interpretable"]
    return _difference_of_shares(
        *((int(found[kind].sum()), int(verdicts[kind].sum())) for kind in RATED_KINDS)
    )


def rule_accuracy_gap(evidence: Evidence, _: Site | None) -> Outcome:
    """How much better a small rule tells where a feature is active: transcoder minus SAE."""
    summary = evidence.table("interpretability/automatic_summary.csv")
    of_rule = summary[summary["measure"] == "rule_accuracy"].set_index("dictionary")
    of_both = of_rule.loc[_rated_names(evidence.scale), ["mean", "low", "high"]]
    return _difference(*(Measured(*row) for row in of_both.to_numpy()))


def context_free_gap(evidence: Evidence, _: Site | None) -> Outcome:
    """The share of features whose strongest examples are all on one token: transcoder minus SAE."""
    measures = evidence.table("interpretability/automatic.csv")
    shares = measures[measures["measure"] == "single_token_share"].groupby("dictionary")["value"]
    of_both = [shares.get_group(name) for name in _rated_names(evidence.scale)]
    return _difference_of_shares(*((int((values == 1).sum()), len(values)) for values in of_both))


def largest_completeness_error(evidence: Evidence, _: Site | None) -> Outcome:
    """How much of the target the attributions leave out, in the worst circuit."""
    names = [case.name for case in evidence.scale.circuits.cases]
    records = [evidence.record(f"circuits/{name}/paths.json") for name in names]
    return Measured.exactly(max(abs(record["completeness_error"]) for record in records))


def precision_of_de_embedding(evidence: Evidence, _: Site | None) -> Outcome:
    """How much more precise the predicted tokens are than those predicted for another feature."""
    summary = evidence.table("case_studies/systematic_summary.csv")
    row = summary[(summary["by"] == "all") & (summary["method"] == DE_EMBEDDING)].iloc[0]
    return Measured(row["precision_gain"], row["precision_gain_low"], row["precision_gain_high"])


def rank_by_ablation(evidence: Evidence, _: Site | None) -> Outcome:
    """The rank, by mean ablation, of the MLP and head that attribution chooses; the worse one.

    Ablation knows nothing of transcoders.
    """
    where = evidence.table("greater_than/where.csv")
    summary = evidence.record("greater_than/summary.json")
    ranks = []
    for kind, part in (("mlp", f"mlp{summary['layer']}"), ("head", summary["head"])):
        of_kind = where[where["kind"] == kind].sort_values("mean", ascending=False)
        ranks.append(list(of_kind["part"]).index(part) + 1)
    return Measured.exactly(max(ranks))


def features_above_neurons(evidence: Evidence, _: Site | None) -> Outcome:
    """The mean difference between the two curves of Figure 4."""
    summary = evidence.record("greater_than/summary.json")
    return Measured(**summary["mean_above_neurons"]["transcoder"])


def largest_drop(evidence: Evidence, _: Site | None) -> Outcome:
    """How much the worst feature lowers the metric; 0 if no drop is certain."""
    bad = evidence.record("greater_than/summary.json")["bad_features"]
    return Measured(**bad[0]["drop"]) if bad else Measured.exactly(0.0)


def share_with_step(evidence: Evidence, _: Site | None) -> Outcome:
    """The share of features that raise later years above those on which they are active."""
    return _share_of_first_features(evidence, "step")


def share_in_agreement(evidence: Evidence, _: Site | None) -> Outcome:
    """The share of features whose de-embedding agrees with the years on which they are active."""
    return _share_of_first_features(evidence, "agreement")


def share_of_successful_studies(evidence: Evidence, _: Site | None) -> Outcome:
    """The share of worked studies that succeeded or mostly did."""
    outcomes = evidence.table("case_studies/table4.csv")["outcome"]
    judged = outcomes[outcomes != "other weights"]
    if judged.empty:
        return Untestable("no study was worked on the weights of this run")
    return _share(int(judged.isin(["success", "mostly"]).sum()), len(judged))


MEASURES: dict[str, Measure] = {
    measure.__name__: measure
    for measure in (
        front_gap,
        gap_of_largest_over_smallest_model,
        rated_interpretable,
        rule_accuracy_gap,
        context_free_gap,
        largest_completeness_error,
        precision_of_de_embedding,
        rank_by_ablation,
        features_above_neurons,
        largest_drop,
        share_with_step,
        share_in_agreement,
        share_of_successful_studies,
    )
}


def _rated_names(scale: Scale) -> list[str]:
    return [scale.rated(kind).name for kind in RATED_KINDS]


def _share_of_first_features(evidence: Evidence, column: str) -> Outcome:
    features = evidence.table("greater_than/features.csv")
    values = features.loc[features["rank"] <= FIRST_FEATURES, column].dropna()
    if values.empty:
        return Untestable(f"no feature has a {column}")
    return _share(int((values > 0).sum()), len(values))


def _share(count: int, total: int) -> Measured:
    """A share with Wilson's interval."""
    interval = stats.binomtest(count, total).proportion_ci(method="wilson")
    return Measured(count / total, float(interval.low), float(interval.high))


def _difference(first: Measured, second: Measured) -> Measured:
    """The difference of two independent values; the half-widths of intervals add in quadrature."""
    value = first.value - second.value
    below = math.hypot(first.value - first.low, second.high - second.value)
    above = math.hypot(first.high - first.value, second.value - second.low)
    return Measured(value, value - below, value + above)


def _difference_of_shares(first: tuple[int, int], second: tuple[int, int]) -> Measured:
    """The difference of two shares, with Newcombe's interval."""
    return _difference(_share(*first), _share(*second))
