"""The greater-than case study in words and tables."""

from typing import Any

import pandas as pd

from transcoders.config import PublishedGreaterThan
from transcoders.tables.html import html_table, in_markdown

KIND_NAMES = {
    "transcoder": "Transcoder features",
    "mlp_out_sae": "Features of the SAE on the MLP's output",
}
FEATURES_OF_CLAIM = 20
"""By variance: those of which the paper's Figure 5 shows the first three."""
PART_NAMES = {"mlp": "MLPs", "head": "heads"}


def describe_task(summary: dict[str, Any]) -> str:
    """How well the model does the task at all."""
    templates = "; ".join(
        f"{i}. “{in_markdown(text)}”" for i, text in enumerate(summary["templates"], 1)
    )
    written = (
        "two digits are one token, and a continuation is the next token"
        if summary["numbers"] == "pairs"
        else "every digit is a token, and p(YY) = p(tens) · p(units | tens)"
    )
    return (
        f"The model is **{summary['model']}**; in its tokenizer {written}. Templates: {templates}. "
        f"On average over YY from 01 to 98 and templates its metric is "
        f"**{_interval(summary['metric']['original'])}** (1 would be all probability on later "
        "years, −1 none)."
    )


def describe_claims(summary: dict[str, Any], where: pd.DataFrame, features: pd.DataFrame) -> str:
    """The paper's claims on this circuit, each with what came of it here."""
    mlp, head = f"mlp{summary['layer']}", summary["head"]
    first = {
        kind: where[where["kind"] == kind].sort_values("mean")["part"].iloc[-1]
        for kind in PART_NAMES
    }
    agrees = [first["mlp"] == mlp, first["head"] == head]
    shown = features[features["rank"] <= FEATURES_OF_CLAIM].dropna(subset=["step", "agreement"])
    share = ((shown["step"] > 0) & (shown["agreement"] > 0)).mean()
    gap = summary["mean_above_neurons"]["transcoder"]
    claims = [
        (
            "the task runs through one MLP's features, reached by one head that reads the year",
            ("not reproduced", "partly reproduced", "reproduced")[sum(agrees)],
            f"attribution chooses MLP {summary['layer']} and {head}; mean ablation, "
            f"independently, {first['mlp'].replace('mlp', 'MLP ')} and {first['head']}",
        ),
        (
            "features are driven by the years on which they are active, and raise later ones",
            "reproduced" if share > 0.5 else "not reproduced",
            f"both, by sign, for {share:.0%} of the first {len(shown)} features; "
            "chance would be 25%",
        ),
        (
            "few transcoder features do better than as many neurons",
            "reproduced" if gap["low"] > 0 else "not reproduced",
            f"metric {gap['value']:+.3f} from that of neurons on average over the numbers kept",
        ),
        (
            "a feature exists whose addition does harm",
            "reproduced" if summary["bad_features"] else "not reproduced",
            "; ".join(
                f"feature {bad['unit']} takes {bad['drop']['value']:.4f} from the metric"
                for bad in summary["bad_features"]
            )
            or "no drop beyond doubt",
        ),
    ]  # fmt: skip
    return "\n".join(
        ["**What came of the paper's claims:**", ""]
        + [f"- {claim}: **{verdict}** ({why})" for claim, verdict, why in claims]
    )


def describe_where(summary: dict[str, Any], where: pd.DataFrame) -> str:
    """What the rule chooses, and whether ablation, which the rule does not look at, agrees."""
    mlp, head = f"mlp{summary['layer']}", summary["head"]
    layers = ", ".join(map(str, summary["layers_with_transcoder"]))
    lines = [
        f"**The rule chooses MLP {summary['layer']} and {head}.** It knows only attributions, and "
        f"only MLPs with a transcoder can be chosen (layers {layers}; layer 0 is left out). Mean "
        "ablation knows nothing of transcoders:",
        "",
    ]
    for kind, part in (("mlp", mlp), ("head", head)):
        ranked = where[where["kind"] == kind].sort_values("mean", ascending=False)
        rank = list(ranked["part"]).index(part) + 1
        lost = ranked[ranked["part"] == part].iloc[0]
        lines.append(
            f"- {part} is number **{rank}** of {len(ranked)} {PART_NAMES[kind]} by mean ablation: "
            f"without what the year changes in it, {lost['mean']:.3f} of the next token's "
            f"probability difference of {summary['next_token_difference']:.3f} is lost."
        )
    mlps = where[where["kind"] == "mlp"]
    largest = mlps[mlps["layer"] > 0].sort_values("attribution").iloc[-1]
    if largest["part"] != mlp:
        lines.append(
            f"- The MLP with the largest attribution of all, layer 0 left out, is "
            f"{largest['part']} ({largest['attribution']:.2f} logits); it has no transcoder."
        )
    return "\n".join(lines)


def parts_table(where: pd.DataFrame, n: int = 8) -> str:
    """The MLPs and heads that mean ablation says matter most."""
    best = where.sort_values("mean", ascending=False).head(n)
    shown = best[["part", "mean", "zero", "attribution", "into_chosen_mlp"]].rename(
        columns={
            "mean": "lost by mean ablation",
            "zero": "by zero ablation",
            "attribution": "attribution (logits)",
            "into_chosen_mlp": "of it through the chosen MLP's features, from the year",
        }
    )
    return html_table(shown, dict.fromkeys(shown.columns[1:], "{:+.3f}"), name="parts")


def describe_years(features: pd.DataFrame) -> str:
    """How many of the features do what Figure 5 shows."""
    known = features.dropna(subset=["step", "agreement"])
    first = known[known["rank"] <= FEATURES_OF_CLAIM]
    return (
        f"Of the {len(first)} features with the largest variance, {(first['step'] > 0).sum()} "
        "raise later years over the others on the years on which they are active (*step* above 0; "
        f"median {first['step'].median():+.3f} logits for an activation of 1), and for "
        f"{(first['agreement'] > 0).sum()} the de-embedding, which comes from weights alone, "
        "correlates with the activations over the numbers (*agreement*: Spearman's, median "
        f"{first['agreement'].median():+.2f}). Of all {len(known)} in `features.csv`: "
        f"{(known['step'] > 0).sum()} and {(known['agreement'] > 0).sum()}."
    )


def describe_kept(summary: dict[str, Any]) -> str:
    """Whether a few features do better than as many neurons, and the bad feature."""
    lines = []
    for kind, gap in summary["mean_above_neurons"].items():
        caught = summary["neurons_catch_up"][kind]["value"]
        if gap["low"] > 0:
            verdict = "do better than as many neurons"
        elif gap["high"] < 0:
            verdict = "do worse than as many neurons"
        else:
            verdict = "cannot be told from as many neurons"
        ahead = (
            "ahead of neurons at every number"
            if caught is None
            else "never ahead from the first unit on"
            if caught == 1
            else f"ahead from the first unit until neurons catch up at {caught:.0f}"
        )
        lines.append(
            f"- **{KIND_NAMES[kind]} {verdict}**: averaged over the numbers kept, their metric "
            f"is {gap['value']:+.3f} from that of neurons (95% interval {gap['low']:+.3f} to "
            f"{gap['high']:+.3f}); {ahead}."
        )
    metric = summary["metric"]
    lines.append(
        "- Metric with the whole transcoder in place of the MLP: "
        f"{_interval(metric['transcoder'])}; of the model as it is "
        f"{metric['original']['value']:.3f}, with the MLP removed "
        f"{metric['removed']['value']:.3f}."
    )
    for bad in summary["bad_features"]:
        whole = metric["transcoder_without_bad"]["value"]
        lines.append(
            f"- **A bad feature exists**: adding feature {bad['unit']}, number {bad['rank']} by "
            f"variance, lowers the metric by {_interval(bad['drop'], digits=4)}; the whole "
            f"transcoder without it reaches {whole:.3f}. (The largest of many drops, so its size "
            "is biased upwards.)"
        )
    if not summary["bad_features"]:
        lines.append("- No feature lowers the metric beyond doubt when it is added.")
    return "\n".join(lines)


def recurring_table(recurring: pd.DataFrame, n: int = 15) -> str:
    """The features and heads on the paths of most prompts."""
    shown = recurring.head(n)[["part", "token", "share", "attribution"]].rename(
        columns={
            "token": "lies at or reads",
            "share": "on paths of",
            "attribution": "attribution (logits)",
        }
    )
    formats = {"on paths of": "{:.0%}", "attribution (logits)": "{:+.3f}"}
    return html_table(shown, formats, name="recurring")


def example_table(paths: pd.DataFrame, n: int = 4) -> str:
    """The strongest paths of some prompts."""
    shown = paths[paths["rank"] <= n].drop(columns="rank")
    return html_table(shown, {"attribution": "{:+.3f}"}, name="examples")


def published_table(
    summary: dict[str, Any], features: pd.DataFrame, paper: PublishedGreaterThan
) -> str:
    """The paper's values beside those found."""
    metric = summary["metric"]
    bad = [feature["unit"] for feature in summary["bad_features"]]
    found = {
        "MLP": (paper.layer, summary["layer"]),
        "head": (paper.head, summary["head"]),
        "features of largest variance": (
            ", ".join(map(str, paper.top_features)),
            ", ".join(
                name.split("[")[1].rstrip("]")
                for name in features.sort_values("rank")["feature"][: len(paper.top_features)]
            ),
        ),
        "bad feature": (paper.bad_feature, ", ".join(map(str, bad)) or "none"),
        "neurons catch up at": (
            paper.neurons_catch_up, _whole(summary["neurons_catch_up"]["transcoder"]["value"])
        ),
        "metric, model as it is": (paper.original, f"{metric['original']['value']:.5f}"),
        "metric, MLP replaced": (paper.transcoder, f"{metric['transcoder']['value']:.5f}"),
        "metric, without the bad feature": (
            paper.transcoder_without_bad,
            f"{metric['transcoder_without_bad']['value']:.5f}" if bad else "",
        ),
    }  # fmt: skip
    if not paper.top_features:
        del found["features of largest variance"], found["bad feature"]
    rows = pd.DataFrame(
        [(what, str(ours), str(here)) for what, (ours, here) in found.items()],
        columns=["quantity", "paper", "here"],
    )
    return html_table(rows, {}, name="published")


def _whole(value: float | None) -> str:
    return "never" if value is None else f"{value:.0f}"


def _interval(estimate: dict[str, float], *, digits: int = 3) -> str:
    return (
        f"{estimate['value']:.{digits}f} (95% interval {estimate['low']:.{digits}f} to "
        f"{estimate['high']:.{digits}f})"
    )
