"""Automatic measures and blind studies in words and tables."""

from typing import Any

import pandas as pd
from markupsafe import Markup

from transcoders.config import RATED_KINDS
from transcoders.contents import STUDY
from transcoders.rating.records import NO_PERSON, PERSON
from transcoders.rating.table1 import NO_RATINGS
from transcoders.tables.html import html_table

NO_LIVE = "No transcoder has two live features: see `dead_fraction` in `evaluation.csv`."
METHOD_NAMES = {
    "direct": "straight from the embedding",
    "layer 0, linear": "through ten features of layer 0",
    "layer 0": "through all of layer 0",
    "heads": "through heads, for tokens before",
}


def measures_table(summary: pd.DataFrame, names: dict[str, str]) -> str:
    """Means over live features with their intervals, with a column for each dictionary.

    Args:
        summary: ``automatic_summary.csv``.
        names: what to call each dictionary, by its name; in the order of the columns.
    """
    shown = summary.assign(mean=summary.apply(_interval, axis=1))
    shown = shown.pivot(index="measure", columns="dictionary", values="mean")
    shown = shown.reindex(columns=list(names)).fillna("no feature measured")
    shown = shown.loc[list(dict.fromkeys(summary["measure"]))].rename(columns=names)
    shown.index = shown.index.str.replace("_", " ")
    return html_table(shown.reset_index(), {}, name="measures")


def ratings_table(table1: pd.DataFrame) -> str:
    """Table 1: a row for each rater, and one for the paper. Cells: transcoder / SAE.

    Args:
        table1: ``table1.csv``.
    """
    paper = table1.drop_duplicates("rating").assign(rater="the paper", by=PERSON)
    for kind in RATED_KINDS:
        paper[kind] = paper[f"paper_{kind}"]
    rows = pd.concat([table1[table1["rater"] != NO_RATINGS], paper])
    rows["counts"] = rows["transcoder"].astype(str) + " / " + rows["mlp_in_sae"].astype(str)
    ratings = list(dict.fromkeys(rows["rating"]))
    shown = rows.pivot(index=["rater", "by"], columns="rating", values="counts")[ratings]
    return html_table(shown.reset_index(), {}, name="table1")


def describe_ratings(record: dict[str, Any]) -> str:
    """Who rated, and how far raters agree.

    Args:
        record: ``table1.json``.
    """
    by = record["by"]
    people = [rater for rater, of in by.items() if of == PERSON]
    models = [f"{rater} ({of})" for rater, of in by.items() if of != PERSON]
    said = f"People who rated: {', '.join(people)}." if people else f"**{NO_PERSON.capitalize()}.**"
    if models:
        said += f" Language models rated: {', '.join(models)}."
    if record["other_weights"]:
        said += (
            f" Not counted, because they rated dictionaries with other weights: "
            f"{', '.join(record['other_weights'])}."
        )
    means = record["agreement"]["mean_kappa"] if record["agreement"] else {}
    for of, kappas in means.items():
        kappa = {about: "undefined" if k is None else f"{k:.2f}" for about, k in kappas.items()}
        raters = "people" if of == PERSON else f"runs of {of}"
        said += (
            f" Agreement between {raters} (Cohen's κ, mean over pairs): {kappa['verdict']} on the "
            f"rating, {kappa['context_free']} on context-free."
        )
    return said


def describe_studies(summary: pd.DataFrame) -> str:
    """How good blind predictions are, method by method."""
    if summary.empty:
        return f"- Nothing was studied. {NO_LIVE}"
    lines = []
    for _, row in summary[summary["by"] == "all"].iterrows():
        line = (
            f"- {METHOD_NAMES[row['method']]}: precision **{row['precision']:.3f}** against "
            f"{row['precision_control']:.3f} (gain {row['precision_gain']:+.3f}, 95% interval "
            f"{row['precision_gain_low']:+.3f} to {row['precision_gain_high']:+.3f})"
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
    """Table 4: case studies, and how well their hypotheses tell where features are active.

    Each has a link to its page, which stands in the same folder.
    """
    headings = {
        "top_matched": "strongest", "sampled_matched": "active", "silent_matched": "silent",
        "balanced_accuracy": "balanced accuracy",
    }  # fmt: skip
    shown = table4[["study", "feature", "hypothesis", *headings, "outcome"]]
    link = Markup('<a href="{}{}.html">{}</a>')
    shown = shown.assign(study=[link.format(STUDY, name, name) for name in table4["study"]])
    formats = dict.fromkeys(headings, "{:.0%}") | {"balanced_accuracy": "{:.2f}"}
    return html_table(shown, formats, headings=headings, name="table4")


def _interval(row: "pd.Series[Any]") -> str:
    if pd.isna(row["low"]):  # of a single feature
        return f"{row['mean']:.3f}"
    return f"{row['mean']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
