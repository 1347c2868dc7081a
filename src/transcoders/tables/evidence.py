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
ENOUGH = 0.5
"""From this share of the target on, errors are called most of it. A negative share never is."""


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
    ranks = f"Among all next tokens, {listed} for the model."
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
    does = {
        "necessity": "Without the circuit, the target falls by",
        "sufficiency": "With the circuit alone, the target rises by",
    }[first.measure]
    verdict = {
        (True, True): "So the circuit stands out from both kinds of random sets",
        (True, False): "So the circuit stands out from random sets of the same kinds and layers, "
        "not from the other kind",
        (False, True): "So the circuit stands out from random sets of the same kinds and layers "
        "and tokens, not from the other kind",
        (False, False): "So the circuit does not stand out from random sets",
    }[first.rank == 1, second.rank == 1]
    than = "more" if first.effect > first.strongest else "no more"
    return (
        f"{does} {first.effect:.2f} of the {first.everything:.2f} that all parts make. Among "
        f"random sets of the same kinds and layers this is rank {first.rank} of {first.of} (their "
        f"median: {first.median:.2f}), among sets at the same tokens too rank {second.rank} of "
        f"{second.of} ({second.median:.2f}). {verdict}; it does {than} than as many of the "
        f"strongest parts ({first.strongest:.2f})."
    )


def _carried(errors: pd.DataFrame) -> str:
    shares = errors.groupby("origin")["share"].sum()
    listed = ", ".join(
        f"{word} {shares[origin]:.0%}" for origin, word in ORIGINS.items() if origin in shares
    )
    of_errors = errors[errors["origin"] == "error"]
    if of_errors.empty:
        return f"In the end the target comes from: {listed}."
    by_layer = zip(of_errors["layer"], of_errors["share"], strict=True)
    layer, largest = max(by_layer, key=lambda pair: abs(pair[1]))
    if shares["error"] < 0:
        remark = "Errors are unexplained. Here they work against the target"
    else:
        what = "most of the target" if shares["error"] >= ENOUGH else "that share"
        remark = f"Errors are unexplained, so {what} is outside what features can tell"
    return (
        f"In the end the target comes from: {listed}. {remark}; the largest error is that of layer "
        f"{layer} ({largest:.0%})."
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
