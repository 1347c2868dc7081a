"""The greater-than case study in words and tables."""

from typing import Any

import pandas as pd

from transcoders.circuits.notation import layers_in_words
from transcoders.config import PublishedGreaterThan
from transcoders.greater_than.years import LOOKED_AT, first_known
from transcoders.tables.html import html_table, in_markdown

KIND_NAMES = {
    "transcoder": "Transcoder features",
    "mlp_out_sae": "Features of the SAE on the MLP's output",
}
PART_NAMES = {"mlp": "MLPs", "head": "heads"}
WRITTEN = {
    "pairs": "two digits are one token, and a continuation is the next token",
    "digits": "every digit is a token, and p(YY) = p(tens) · p(units | tens)",
}


def describe_task(summary: dict[str, Any]) -> str:
    """How well the model does the task at all."""
    texts = enumerate(map(in_markdown, summary["templates"]), start=1)
    templates = "; ".join(f"{number}. “{text}”" for number, text in texts)
    return (
        f"The model is **{summary['model']}**. In its tokenizer, {WRITTEN[summary['numbers']]}. "
        f"Templates: {templates}. Averaged over YY from 01 to 98 and templates, its metric is "
        f"**{_interval(summary['metric']['original'])}**. It would be 1 if all probability were on "
        "later years, and −1 if none were."
    )


def describe_where(summary: dict[str, Any], where: pd.DataFrame) -> str:
    """What the rule chooses, and whether ablation, which the rule does not use, agrees."""
    mlp, head = f"mlp{summary['layer']}", summary["head"]
    layers = layers_in_words(summary["layers_with_transcoder"])
    lines = [
        f"**The rule chooses {mlp} and {head}.** It uses attributions only, and it can only choose "
        f"an MLP with a transcoder (layers {layers}; layer 0 is left out). Mean ablation does not "
        "use transcoders:",
        "",
    ]
    for kind, part in (("mlp", mlp), ("head", head)):
        ranked = where[where["kind"] == kind].sort_values("mean", ascending=False)
        rank = list(ranked["part"]).index(part)
        lines.append(
            f"- {part} is number **{rank + 1}** of {len(ranked)} {PART_NAMES[kind]} by mean "
            f"ablation. Without its dependence on the year, {ranked['mean'].iloc[rank]:.3f} of the "
            "next token's probability difference of "
            f"{summary['next_token_difference']:.3f} is lost."
        )
    mlps = where[(where["kind"] == "mlp") & (where["layer"] > 0)]
    largest = mlps.sort_values("attribution").iloc[-1]
    if largest["part"] != mlp:
        lines.append(
            f"- The MLP with the largest attribution of all, without layer 0, is "
            f"{largest['part']} ({largest['attribution']:.2f} logits); it has no transcoder."
        )
    return "\n".join(lines)


def parts_table(where: pd.DataFrame, n: int = 8) -> str:
    """The MLPs and heads that matter most by mean ablation."""
    headings = {
        "part": "part",
        "mean": "lost by mean ablation",
        "zero": "lost by zero ablation",
        "attribution": "attribution (logits)",
        "into_chosen_mlp": "part of it from the year, through the chosen MLP's features",
    }
    best = where.sort_values("mean", ascending=False).head(n)[list(headings)]
    formats = dict.fromkeys(best.columns[1:], "{:+.3f}")
    return html_table(best, formats, headings=headings, name="parts")


def describe_years(features: pd.DataFrame) -> str:
    """How many of the features that the claims are about do what Figure 5 shows."""
    known = features.dropna(subset=["step", "agreement"])
    step, agreement = (
        features[name].iloc[first_known(features[name].to_numpy())]
        for name in ("step", "agreement")
    )
    of = "" if len(agreement) == len(step) else f" of {len(agreement)}"
    has_all = features[["step", "agreement"]].head(LOOKED_AT).notna().all(axis=None)
    return (
        f"Of the {len(step)} features with the largest variance, {(step > 0).sum()} "
        "raise the years after those on which they are active more than other years (*step* above "
        f"0; median {step.median():+.3f} logits for an activation of 1). For "
        f"{(agreement > 0).sum()}{of}, the de-embedding, which comes from weights alone, "
        "correlates with the activations over the numbers (*agreement* above 0; Spearman's, median "
        f"{agreement.median():+.2f}). Of all {len(known)} features in `features.csv`, "
        f"{(known['step'] > 0).sum()} have the first property and "
        f"{(known['agreement'] > 0).sum()} the second."
        + ("" if has_all else " Features without a value are passed over, as in the claims.")
    )


def describe_kept(summary: dict[str, Any]) -> str:
    """At how many units neurons catch up with features, and what the MLP is worth."""
    lines, metric = [], summary["metric"]
    for kind, caught in summary["neurons_catch_up"].items():
        ahead = f"ahead from the first unit until neurons catch up at {caught['value'] or 0:.0f}"
        if caught["value"] is None:
            ahead = "ahead of neurons at every number"
        elif caught["value"] == 1:
            ahead = "not ahead of neurons with one unit kept"
        lines.append(f"- {KIND_NAMES[kind]} are {ahead}.")
    lines.append(
        "- With the whole transcoder in place of the MLP, the metric is "
        f"{_interval(metric['transcoder'])}. It is {metric['original']['value']:.3f} for the model "
        f"as it is and {metric['removed']['value']:.3f} with the MLP removed."
    )
    return "\n".join(lines)


def recurring_table(recurring: pd.DataFrame, n: int = 15) -> str:
    """The features and heads on the paths of most prompts."""
    headings = {
        "part": "part",
        "token": "lies at or reads",
        "share": "on paths of",
        "attribution": "attribution (logits)",
    }
    formats = {"share": "{:.0%}", "attribution": "{:+.3f}"}
    shown = recurring.head(n)[list(headings)]
    return html_table(shown, formats, headings=headings, name="recurring")


def example_table(paths: pd.DataFrame, n: int = 4) -> str:
    """The strongest paths of some prompts."""
    shown = paths[paths["rank"] <= n].drop(columns="rank")
    return html_table(shown, {"attribution": "{:+.3f}"}, name="examples")


def published_table(
    summary: dict[str, Any], features: pd.DataFrame, paper: PublishedGreaterThan
) -> str:
    """The paper's values beside ours."""
    value = {name: f"{metric['value']:.5f}" for name, metric in summary["metric"].items()}
    caught = summary["neurons_catch_up"]["transcoder"]["value"]
    rows = {"MLP": (paper.layer, summary["layer"]), "head": (paper.head, summary["head"])}
    if paper.top_features:
        best = features.sort_values("rank")["feature"].head(len(paper.top_features))
        rows["features of largest variance"] = (
            ", ".join(map(str, paper.top_features)),
            ", ".join(best.str.extract(r"\[(\d+)\]")[0]),
        )
        harmful = summary["harmful_feature"]
        bad = str(harmful["unit"]) if harmful["drop"]["low"] > 0 else ""
        rows["bad feature"] = (paper.bad_feature, bad or "none")
    rows |= {
        "neurons catch up at": (paper.neurons_catch_up, f"{caught:.0f}" if caught else "never"),
        "metric, model as it is": (paper.original, value["original"]),
        "metric, MLP replaced": (paper.transcoder, value["transcoder"]),
        "metric, without the bad feature": (
            paper.transcoder_without_bad,
            value["transcoder_without_bad"],
        ),
    }
    table = pd.DataFrame(rows, index=["paper", "here"]).T.rename_axis("quantity").reset_index()
    return html_table(table.astype(str), {}, name="published")


def _interval(estimate: dict[str, float], digits: str = ".3f") -> str:
    value, low, high = (format(estimate[name], digits) for name in ("value", "low", "high"))
    return f"{value} (95% interval {low} to {high})"
