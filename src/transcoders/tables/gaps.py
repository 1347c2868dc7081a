"""The gaps between transcoders and SAEs, as tables."""

import pandas as pd

from transcoders.tables.html import html_table


def why_table(why: pd.DataFrame) -> str:
    """``why.csv`` as an HTML table."""
    signed = dict.fromkeys(("before", "after", "change", "low", "high"), "{:+.3f}")
    headings = {
        "resampled": "intervals over",
        "share_of_gap": "share of the gap",
        "explains": "explains it",
    }
    formats = signed | {"share_of_gap": "{:.0%}"}
    return html_table(why.drop(columns="n"), formats, headings=headings, name="why")


def points_table(points: pd.DataFrame) -> str:
    """``gap_by_tokens.csv`` as an HTML table."""
    formats = {
        "tokens_different": "{:,}", "tokens_trained": "{:,}", "gap": "{:+.3f}", "low": "{:+.3f}",
        "high": "{:+.3f}", "l0_low": "{:.0f}", "l0_high": "{:.0f}",
    }  # fmt: skip
    headings = {name: name.replace("_", " ") for name in formats}
    return html_table(points[["site", "line", *formats]], formats, headings=headings, name="points")
