"""The claims ledger in words and as a table."""

import html
from typing import Any

import pandas as pd

Row = dict[Any, Any]

VERDICTS = {
    "reproduced": "✓",
    "partly": "◐",
    "not reproduced": "✗",
    "not testable at this scale": "–",
}
"""With a sign for each, so that a column of them can be read at a glance."""


def describe_verdicts(claims: pd.DataFrame) -> str:
    """One sentence: how many claims came out how."""
    counts = claims["verdict"].value_counts()
    parts = [f"{counts[verdict]} {verdict}" for verdict in VERDICTS if verdict in counts]
    return f"**Of {len(claims)} claims: {', '.join(parts)}.**"


def claims_table(claims: pd.DataFrame, *, pages: str = "") -> str:
    """One row a claim: what the paper says and reports, what came out here, the verdict, links.

    Args:
        claims: ``claims.csv``.
        pages: where pages are, seen from the one that shows the table: empty or ending in a slash.
    """
    rows = [
        {
            "claim (section of the paper)": _claim(row),
            "verdict": f"<b>{VERDICTS[row['verdict']]} {row['verdict']}</b>",
            "here": _value(row),
            "the paper": html.escape(row["paper_value"]),
            "evidence": _links(row["evidence"], pages),
        }
        for row in claims.to_dict("records")
    ]
    styler = pd.DataFrame(rows).style.hide(axis="index").set_uuid("claims")
    styler = styler.set_table_styles([{"selector": "th", "props": "text-align: left"}])
    return styler.set_properties(None, **{"text-align": "left", "vertical-align": "top"}).to_html()


def _claim(row: Row) -> str:
    text = f"{html.escape(row['statement'])} ({html.escape(row['section'])})"
    site = row["claim"].partition(":")[2]
    return f"{text}<br><b>{html.escape(site)}</b>" if site else text


def _value(row: Row) -> str:
    unit = html.escape(row["measure"])
    if pd.isna(row["value"]):
        return f"not measured: {unit}"
    if row["low"] == row["high"]:
        return f"<b>{row['value']:.3g}</b> {unit}"
    return f"<b>{row['value']:.3g}</b> [{row['low']:.3g} to {row['high']:.3g}] {unit}"


def _links(evidence: str, pages: str) -> str:
    """The page as a link, the tables by name; a reason before them."""
    reason, _, files = evidence.rpartition("; ")
    names = files.split(", ")
    page = html.escape(names[0].removeprefix("notebooks/"))
    linked = f'<a href="{html.escape(pages)}{page}">{page.removesuffix(".html")}</a>, from '
    tables = ", ".join(f"<code>{html.escape(name)}</code>" for name in names[1:])
    return (f"{html.escape(reason)}; " if reason else "") + linked + tables
