"""Automatic measures and blind studies in words and tables."""

from typing import Any

import pandas as pd

from transcoders.tables.html import by_sign, html_table

METHOD_NAMES = {
    "direct": "straight from the embedding",
    "layer 0, linear": "through ten features of layer 0",
    "layer 0": "through all of layer 0",
    "heads": "through heads, for tokens before",
}


def describe_measures(summary: pd.DataFrame, transcoder: str, sae: str) -> str:
    """Whether the features of two dictionaries differ, measure by measure."""
    lines = []
    for measure in summary["measure"].unique():
        of_measure = summary[summary["measure"] == measure]
        first, second = (
            of_measure[of_measure["dictionary"] == name].iloc[0] for name in (transcoder, sae)
        )
        order = by_sign(
            first["low"] - second["high"], first["high"] - second["low"],
            below="lower than", above="higher than", neither="not clearly different from",
        )  # fmt: skip
        lines.append(
            f"- *{measure.replace('_', ' ')}*: {_interval(first)} for the transcoder, **{order}** "
            f"{_interval(second)} for the SAE on the MLP's input."
        )
    return "\n".join(lines)


def describe_studies(summary: pd.DataFrame) -> str:
    """How good blind predictions are, method by method."""
    lines = []
    for _, row in summary[summary["by"] == "all"].iterrows():
        verdict = by_sign(
            row["precision_gain_low"], row["precision_gain_high"], below="worse than the control",
            above="better than the control", neither="no better than the control",
        )  # fmt: skip
        line = (
            f"- {METHOD_NAMES[row['method']]}: **{verdict}**; precision {row['precision']:.3f} "
            f"against {row['precision_control']:.3f} (gain {row['precision_gain']:+.3f}, 95% "
            f"interval {row['precision_gain_low']:+.3f} to {row['precision_gain_high']:+.3f})"
        )
        if pd.notna(row["correlation"]):
            line += (
                f"; rank correlation {row['correlation']:+.2f} against "
                f"{row['correlation_control']:+.2f} (gain {row['correlation_gain_low']:+.2f} to "
                f"{row['correlation_gain_high']:+.2f})"
            )
        lines.append(line + ".")
    return "\n".join(lines)


def studies_table(studies: pd.DataFrame, n: int = 6) -> str:
    """The best predictions of one method, some middling ones and some failures."""
    rows = studies[studies["method"] == "layer 0"].sort_values(
        ["precision", "correlation"], ascending=False, kind="stable"
    )
    middle = len(rows) // 2
    shown = pd.concat([rows.head(n), rows.iloc[middle : middle + n // 2], rows.tail(n // 2)])
    shown = shown.drop_duplicates(["dictionary", "feature"]).reset_index(drop=True)  # where few
    shown = shown.assign(transcoder=shown["dictionary"].str.replace("_transcoder", "", regex=False))
    columns = ["transcoder", "feature", "frequency", "predicted", "precision", "correlation"]
    decimals = {"frequency": "{:.4f}", "precision": "{:.2f}", "correlation": "{:+.2f}"}
    formats = {"feature": "{:d}", **decimals}
    return html_table(shown[columns], formats, name="studies")


def case_studies_table(table4: pd.DataFrame) -> str:
    """Table 4: case studies, and how well their hypotheses tell where features are active."""
    renamed = {
        "top_matched": "strongest", "sampled_matched": "active", "silent_matched": "silent",
        "balanced_accuracy": "balanced accuracy",
    }  # fmt: skip
    shown = table4[["study", "feature", "hypothesis", *renamed, "outcome"]].rename(columns=renamed)
    formats = dict.fromkeys(["strongest", "active", "silent"], "{:.0%}")
    return html_table(shown, formats | {"balanced accuracy": "{:.2f}"}, name="table4")


def _interval(row: "pd.Series[Any]") -> str:
    return f"{row['mean']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
