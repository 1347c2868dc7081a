"""The measures of claims about the greater-than task. The study itself made their estimates."""

from typing import Any

from transcoders.claims.measures import Found, Untestable, reads
from transcoders.config import Scale
from transcoders.statistics import Estimate

Summary = dict[str, Any]


@reads("greater_than/summary.json")
def lead_of_chosen_parts(_: Scale, summary: Summary) -> Found:
    """By how much ablating the chosen MLP costs more than any other, and the head likewise."""
    found = _known(summary, "leads")
    notes = [
        f"{part['part']} ranks first of {part['candidates']} in {part['first']:.0%} of resamples"
        for part in found["parts"]
    ]
    n_others = len(_known(summary, "layers_with_transcoder")) - 1
    notes.append(f"the rule chose among {n_others} MLPs that have a transcoder")
    return Found(Estimate.of_record(found["lead"]), "; ".join(notes))


@reads("greater_than/summary.json")
def few_features_above_neurons(_: Scale, summary: Summary) -> Found:
    """The mean difference between the two curves of Figure 4 where few units are kept."""
    found = _known(summary, "few_above_neurons")["transcoder"]
    return Found(Estimate.of_record(found), _chosen_mlp(summary))


@reads("greater_than/summary.json")
def drop_of_harmful_feature(_: Scale, summary: Summary) -> Found:
    """How much the metric falls on held-out prompts when the worst feature is added."""
    harmful = _known(summary, "harmful_feature")
    note = f"feature {harmful['unit']}; {_chosen_mlp(summary)}"
    return Found(Estimate.of_record(harmful["drop"]), note)


@reads("greater_than/summary.json")
def step_after_own_years(_: Scale, summary: Summary) -> Found:
    """How much each feature raises the years after its own, more than other features do."""
    return _own_above_others(summary, "step")


@reads("greater_than/summary.json")
def agreement_with_own_years(_: Scale, summary: Summary) -> Found:
    """How well a feature's de-embedding says on which years it is active, beyond the others'."""
    return _own_above_others(summary, "agreement")


def _own_above_others(summary: Summary, quantity: str) -> Found:
    """A quantity with a feature's own weights, minus the same with the weights of others."""
    found = _known(summary, "own_above_others")[quantity]
    if found is None:
        raise Untestable(f"fewer than two features have a {quantity}")
    note = f"{found['own']:.2f} against {found['others']:.2f}; {_chosen_mlp(summary)}"
    return Found(Estimate.of_record(found["gain"]), note)


def _chosen_mlp(summary: Summary) -> str:
    """Whose features a claim is about, and what that MLP is worth for the task."""
    layer, metric = _known(summary, "layer"), _known(summary, "metric")
    return (
        f"of mlp{layer}; the probability difference is {metric['original']['value']:.3f} with that "
        f"MLP and {metric['removed']['value']:.3f} without its neurons"
    )


def _known(summary: Summary, key: str) -> Any:
    """What the study measured.

    Raises:
        Untestable: it did not.
    """
    if summary.get(key) is None:
        raise Untestable(f"greater_than/summary.json has no {key}")
    return summary[key]
