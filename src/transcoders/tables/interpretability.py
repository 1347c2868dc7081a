"""Automatic measures and blind studies in words and tables."""

from typing import Any

import pandas as pd

from transcoders.tables.html import html_table

METHOD_NAMES = {
    "direct": "straight from the embedding",
    "layer 0, linear": "through ten features of layer 0",
    "layer 0": "through all of layer 0",
    "heads": "through heads, for tokens before",
}


def describe_measures(summary: pd.DataFrame, transcoder: str, sae: str) -> str:
    """Whether the two dictionaries' features can be told apart, measure by measure."""
    lines = []
    for measure in summary["measure"].unique():
        of_measure = summary[summary["measure"] == measure]
        first, second = (
            of_measure[of_measure["dictionary"] == name].iloc[0] for name in (transcoder, sae)
        )
        if first["low"] > second["high"]:
            order = "higher than"
        elif first["high"] < second["low"]:
            order = "lower than"
        else:
            order = "not to be told from"
        lines.append(
            f"- *{measure.replace('_', ' ')}*: {_interval(first)} for the transcoder, **{order}** "
            f"{_interval(second)} for the SAE on the MLP's input."
        )
    return "\n".join(lines)


def describe_studies(summary: pd.DataFrame) -> str:
    """What blind predictions are worth, method by method."""
    lines = []
    for _, row in summary[summary["by"] == "all"].iterrows():
        if row["precision_gain_low"] > 0:
            verdict = "better than the control"
        elif row["precision_gain_high"] < 0:
            verdict = "worse than the control"
        else:
            verdict = "no better than the control"
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
    """The predictions that came out best, and some that failed, by the best of the methods."""
    rows = studies[studies["method"] == "layer 0"].sort_values(
        ["precision", "correlation"], ascending=False, kind="stable"
    )
    middle = len(rows) // 2
    shown = pd.concat([rows.head(n), rows.iloc[middle : middle + n // 2], rows.tail(n // 2)])
    shown = shown.drop_duplicates(["dictionary", "feature"]).reset_index(drop=True)  # where few
    shown = shown.assign(transcoder=shown["dictionary"].str.replace("_transcoder", "", regex=False))
    columns = ["transcoder", "feature", "frequency", "predicted", "precision", "correlation"]
    formats = {
        "feature": "{:d}",
        "frequency": "{:.4f}",
        "precision": "{:.2f}",
        "correlation": "{:+.2f}",
    }
    return html_table(shown[columns], formats, name="studies")


def case_studies_table(table4: pd.DataFrame) -> str:
    """Table 4: case studies with how far their hypotheses tell where features are active."""
    columns = {
        "study": "study",
        "feature": "feature",
        "hypothesis": "hypothesis",
        "top_matched": "strongest",
        "sampled_matched": "active",
        "silent_matched": "silent",
        "balanced_accuracy": "balanced accuracy",
        "outcome": "outcome",
    }
    formats = dict.fromkeys(["strongest", "active", "silent"], "{:.0%}")
    shown = table4[list(columns)].rename(columns=columns)
    return html_table(shown, formats | {"balanced accuracy": "{:.2f}"}, name="table4")


def _interval(row: "pd.Series[Any]") -> str:
    return f"{row['mean']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
