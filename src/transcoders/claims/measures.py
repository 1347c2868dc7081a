"""What decides each claim: a number with an interval, computed from committed tables alone."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd
from scipy import stats

from transcoders.claims.verdicts import Measured, Untestable
from transcoders.config import Scale, Site
from transcoders.files import read_json, read_table
from transcoders.fronts import front_gap as gap_of_fronts
from transcoders.layout import Layout
from transcoders.rating.table1 import NO_RATINGS

NORMAL_95 = 1.959964
FIRST_FEATURES = 20
"""Of Figure 5, by variance."""
DE_EMBEDDING = "layer 0, linear"
"""The paper's way to say from weights which tokens a feature is about."""


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
    """Cross entropy at equal L0, transcoder minus SAE on the MLP's output."""
    assert site is not None
    gap = gap_of_fronts(
        evidence.table("evaluation.csv"), evidence.table("evaluation_by_document.csv"), site.name
    )
    if gap is None:
        return Untestable("the two fronts share no range of L0")
    return Measured(gap.mean, gap.low, gap.high)


def gap_of_largest_over_smallest_model(evidence: Evidence, _: Site | None) -> Outcome:
    """By how much more transcoders are better in the largest model than in the smallest."""
    scale = evidence.scale
    sites = sorted(scale.sites, key=lambda site: scale.models[site.model].n_parameters())
    if len({site.model for site in sites}) < 2:
        return Untestable("there is one model only; its layers are not sizes")
    gaps = [front_gap(evidence, site) for site in (sites[-1], sites[0])]
    untestable = [gap for gap in gaps if isinstance(gap, Untestable)]
    if untestable:
        return untestable[0]
    largest, smallest = (
        Measured(-g.value, -g.high, -g.low) for g in gaps if isinstance(g, Measured)
    )
    return _difference(largest, smallest)


def rated_interpretable(evidence: Evidence, _: Site | None) -> Outcome:
    """Share of rated features that people call interpretable, over all raters."""
    table = evidence.table("interpretability/table1.csv")
    table = table[(table["rater"] != NO_RATINGS) & table["transcoder"].notna()]
    if table.empty:
        return Untestable("nobody has rated features yet")
    verdicts = table[table["rating"].isin(["interpretable", "maybe", "uninterpretable"])]
    found = verdicts[verdicts["rating"] == "interpretable"]
    return _difference_of_shares(
        *(
            (int(found[kind].sum()), int(verdicts[kind].sum()))
            for kind in ("transcoder", "mlp_in_sae")
        )
    )


def rule_accuracy_gap(evidence: Evidence, _: Site | None) -> Outcome:
    """How much better a small rule tells where a transcoder's features are active."""
    summary = evidence.table("interpretability/automatic_summary.csv")
    of_rule = summary[summary["measure"] == "rule_accuracy"].set_index("dictionary")
    columns = of_rule[["mean", "low", "high"]].to_dict("index")
    both = [Measured(*columns[name].values()) for name in _rated_names(evidence.scale)]
    return _difference(*both)


def context_free_gap(evidence: Evidence, _: Site | None) -> Outcome:
    """Share of features whose strongest examples are all on one token."""
    measures = evidence.table("interpretability/automatic.csv")
    shares = measures[measures["measure"] == "single_token_share"].groupby("dictionary")["value"]
    return _difference_of_shares(
        *(
            (int((values == 1).sum()), len(values))
            for values in (shares.get_group(name) for name in _rated_names(evidence.scale))
        )
    )


def largest_completeness_error(evidence: Evidence, _: Site | None) -> Outcome:
    """What attributions to a target leave out of it, of the worst circuit."""
    records = [
        evidence.record(f"circuits/{case.name}/paths.json")
        for case in evidence.scale.circuits.cases
    ]
    return Measured.exactly(max(abs(record["completeness_error"]) for record in records))


def precision_of_de_embedding(evidence: Evidence, _: Site | None) -> Outcome:
    """Precision of the tokens that weights predict, over that of another feature's."""
    summary = evidence.table("case_studies/systematic_summary.csv")
    row = summary[(summary["by"] == "all") & (summary["method"] == DE_EMBEDDING)].iloc[0]
    return Measured(row["precision_gain"], row["precision_gain_low"], row["precision_gain_high"])


def rank_by_ablation(evidence: Evidence, _: Site | None) -> Outcome:
    """Rank by mean ablation, which knows nothing of transcoders, of what attribution chooses."""
    where = evidence.table("greater_than/where.csv")
    summary = evidence.record("greater_than/summary.json")
    ranks = []
    for kind, part in (("mlp", f"mlp{summary['layer']}"), ("head", summary["head"])):
        of_kind = where[where["kind"] == kind].sort_values("mean", ascending=False)
        ranks.append(list(of_kind["part"]).index(part) + 1)
    return Measured.exactly(max(ranks))


def features_above_neurons(evidence: Evidence, _: Site | None) -> Outcome:
    """Mean difference of the two curves of Figure 4."""
    return Measured(
        **evidence.record("greater_than/summary.json")["mean_above_neurons"]["transcoder"]
    )


def largest_drop(evidence: Evidence, _: Site | None) -> Outcome:
    """What the worst feature takes from the metric; 0 where no drop is beyond doubt."""
    bad = evidence.record("greater_than/summary.json")["bad_features"]
    return Measured(**bad[0]["drop"]) if bad else Measured.exactly(0.0)


def share_with_step(evidence: Evidence, _: Site | None) -> Outcome:
    """Features that raise later years over earlier ones on the years on which they are active."""
    return _share_of_first_features(evidence, "step")


def share_in_agreement(evidence: Evidence, _: Site | None) -> Outcome:
    """Features whose de-embedding goes with the years on which they are active."""
    return _share_of_first_features(evidence, "agreement")


def share_of_successful_studies(evidence: Evidence, _: Site | None) -> Outcome:
    """Worked studies whose outcome is a success or mostly one."""
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
    return [scale.rated(kind).name for kind in ("transcoder", "mlp_in_sae")]


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
    """Of two values that vary independently: half-widths add in quadrature."""
    value = first.value - second.value
    below = math.hypot(first.value - first.low, second.high - second.value)
    above = math.hypot(first.high - first.value, second.value - second.low)
    return Measured(value, value - below, value + above)


def _difference_of_shares(first: tuple[int, int], second: tuple[int, int]) -> Measured:
    """Newcombe's interval: that of :func:`_difference` on two of Wilson's."""
    return _difference(_share(*first), _share(*second))
