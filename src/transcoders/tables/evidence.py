"""What speaks for a circuit and against it, in sentences and tables made from its files alone."""

from typing import Any

import pandas as pd

from transcoders.circuits.controls import RANDOM, Comparison, comparisons
from transcoders.circuits.steering import Agreement, agreement
from transcoders.tables.html import html_table, in_markdown

ORIGINS = {
    "embed": "embeddings",
    "mlp": "MLPs without a transcoder",
    "error": "errors of transcoders",
    "bias": "biases",
}
WORDS = {"feature": "features", "head": "heads", "mlp": "whole MLPs"}


def summarise_circuits(controls: dict[str, pd.DataFrame], replacement: pd.DataFrame) -> list[str]:
    """What was found over all circuits of a scale, in sentences.

    Args:
        controls: ``controls.csv`` of each circuit.
        replacement: ``replacement.csv``.
    """
    found = [comparisons(table) for table in controls.values()]
    sentences = []
    for measure, doing, only, moves in (
        ("necessity", "removing", "", "lowers"),
        ("sufficiency", "keeping", "only ", "raises"),
    ):
        own = [[each for each in one if each.measure == measure] for one in found]
        first = sum(all(each.rank == 1 for each in one) for one in own)
        strongest = sum(one[0].effect > one[0].strongest for one in own)
        sentences.append(
            f"In {first} of {len(own)} circuits, {doing} {only}the circuit {moves} the target "
            f"more than {doing} any of {own[0][0].of - 1} random sets of as many parts, at the "
            f"same tokens or not. In {strongest}, it {moves} the target more than {doing} as many "
            "of the strongest parts."
        )
    for model, rows in replacement.groupby("model", sort=False):
        all_at_once = rows.sort_values("n_replaced").iloc[-1]
        original, replaced, means = all_at_once[["ce_original", "ce", "ce_mean_ablated"]]
        sentences.append(
            f"With transcoders in place of {all_at_once['n_replaced']} MLPs of {model} at once, "
            f"the cross entropy rises from {original:.2f} to {replaced:.2f} nats. With means in "
            f"their place, it would be {means:.2f}."
        )
    return sentences


def describe_evidence(
    record: dict[str, Any], controls: pd.DataFrame, steered: pd.DataFrame, errors: pd.DataFrame
) -> str:
    """A paragraph of Markdown: what was found for one circuit, and what was not.

    Args:
        record: ``paths.json``.
        controls: ``controls.csv``.
        steered: ``steering.csv``.
        errors: ``errors.csv``.
    """
    found, kinds = comparisons(controls), steered[steered["factor"] == 0]["kind"].value_counts()
    parts = ", ".join(f"{word} {kinds.get(kind, 0)}" for kind, word in WORDS.items())
    sentences = [
        _preference(record),
        f"The nodes of the circuit found: {parts}.",
        # For each measure, both kinds of random sets.
        *(_compared(*both) for both in zip(found[::2], found[1::2], strict=True)),
        _carried(errors),
        _steered(agreement(steered)),
    ]
    return "**What was found.** " + " ".join(sentences)


def _preference(record: dict[str, Any]) -> str:
    """Whether the model knows the answer that the target asks about."""
    answers = record["target"]["logits"]
    if not answers:
        return "The target is a feature's activation, so there is no right answer."
    listed = " and ".join(
        f"“{in_markdown(answer['token'])}” is number {answer['rank']:,}" for answer in answers
    )
    ranks = f"In the model's ranking of all next tokens, {listed}."
    if (prefers_first := record["target"]["prefers_first"]) is None:
        return ranks
    if prefers_first:
        return f"**The model prefers the first of the two.** {ranks}"
    return (
        f"**The model does not prefer the first of the two**, so the circuit shows what speaks for "
        f"an answer that the model does not give. {ranks}"
    )


def _compared(first: Comparison, second: Comparison) -> str:
    """How a circuit does by one measure, beside random sets and the strongest parts."""
    does, everything = {
        "necessity": ("Removing the circuit lowers", "removing everything lowers it"),
        "sufficiency": ("Keeping only the circuit raises", "keeping everything raises it"),
    }[first.measure]
    sets = "random sets of as many parts of the same kinds and layers"
    verdict = {
        (True, True): f"None of the {sets} does as much, at the same tokens or not",
        (True, False): f"None of the {sets} does as much, but some at the same tokens do",
        (False, True): f"Some {sets} do more, but none at the same tokens",
        (False, False): f"Some {sets} do more, at the same tokens too",
    }[first.rank == 1, second.rank == 1]
    than = "less" if first.effect > first.strongest else "as much or more"
    return (
        f"{does} the target by {first.effect:.2f}; {everything} by {first.everything:.2f}. "
        f"{verdict}. As many of the strongest parts do {than} ({first.strongest:.2f})."
    )


def _carried(errors: pd.DataFrame) -> str:
    """What the target is a sum of, and how much of it no feature explains."""
    sums = errors.groupby("origin")["attribution"].sum()
    listed = ", ".join(
        f"{word} {sums[origin]:+.2f}" for origin, word in ORIGINS.items() if origin in sums
    )
    said = f"In the end the target, {sums.sum():.2f}, is the sum of what these put in: {listed}."
    of_errors = errors[errors["origin"] == "error"]
    if of_errors.empty:
        return said
    by_layer = zip(of_errors["layer"], of_errors["attribution"], strict=True)
    layer, largest = max(by_layer, key=lambda pair: abs(pair[1]))
    return (
        f"{said} No feature explains what errors put in; most of it comes from layer {layer} "
        f"({largest:+.2f})."
    )


def _steered(found: Agreement) -> str:
    return (
        f"Over {found.n} scalings of single nodes, real and predicted changes of the target have a "
        f"correlation of {found.correlation:.2f} and a slope of {found.slope:.2f}."
    )


def comparisons_table(controls: dict[str, pd.DataFrame]) -> str:
    """The ranks of all circuits among random sets, as an HTML table."""
    rows = pd.DataFrame(
        {
            "circuit": name,
            "measure": one.measure,
            "random sets": "kinds, layers" if one.control == RANDOM else "and tokens",
            "effect": one.effect,
            "all parts": one.everything,
            "strongest": one.strongest,
            "random, median": one.median,
            "rank": f"{one.rank} of {one.of}",
        }
        for name, table in controls.items()
        for one in comparisons(table)
    )
    numbers = ["effect", "all parts", "strongest", "random, median"]
    return html_table(rows, dict.fromkeys(numbers, "{:.2f}"), name="controls")


def steering_table(steered: dict[str, pd.DataFrame]) -> str:
    """How real changes follow predicted ones, by circuit and by kind of node, as HTML."""
    together = pd.concat(steered.values())
    groups = dict(steered)
    for kind, word in WORDS.items():
        if (of_kind := together[together["kind"] == kind]).size:
            groups[f"all {word}"] = of_kind
    rows = pd.DataFrame([{"nodes": name, **agreement(t)._asdict()} for name, t in groups.items()])
    rows = rows.rename(columns={"n": "scalings"})
    return html_table(rows, {"correlation": "{:.2f}", "slope": "{:.2f}"}, name="steering")
