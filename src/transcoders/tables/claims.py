"""The claims in words and as a table, and what the run ran on."""

import html
from typing import Any

import pandas as pd

from transcoders.tables.html import html_table

Row = dict[Any, Any]

VERDICTS = {
    "reproduced": "✓",
    "partly": "◐",
    "not reproduced": "✗",
    "not testable at this scale": "–",
}
"""Each verdict has a sign, so that a reader can scan the column."""


def describe_verdicts(claims: pd.DataFrame) -> str:
    """One sentence that counts the claims by verdict."""
    counts = claims["verdict"].value_counts()
    parts = [f"{counts[verdict]} {verdict}" for verdict in VERDICTS if verdict in counts]
    return f"**Of {len(claims)} claims: {', '.join(parts)}.**"


def claims_table(claims: pd.DataFrame, *, pages: str = "") -> str:
    """One row a claim: the paper's statement and value, the value here, the verdict, and links.

    Args:
        claims: ``claims.csv``.
        pages: the folder of the pages, relative to the page with the table: empty, or ending in a
            slash.
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


def environment_table(record: dict[str, Any]) -> str:
    """``environment.json`` as a table."""
    hardware = record["hardware"]
    trained = ", ".join(f"{number} on {device}" for device, number in record["trained_on"].items())
    shown = {
        "commit": record["commit"],
        "dictionaries trained": trained or "none: others' are used",
        "machine": f"{hardware['processor']}, {hardware['cores']} cores, {hardware['memory_gib']} "
        f"GiB, {', '.join(hardware['gpus']) or 'no GPU'}; {hardware['system']}",
        "vector instructions that PyTorch uses": hardware["vector_instructions"],
        "threads of a job": _pairs(record["threads"]),
        "Python": record["python"],
        "packages": _pairs(record["versions"]),
        "packages not as in requirements.lock": _pairs(record["not_as_locked"]) or "none",
        **{f"SHA-256 of {path}": digest for path, digest in record["sha256"].items()},
    }
    rows = pd.DataFrame({"what": shown.keys(), "which": shown.values()})
    return html_table(rows, {}, name="environment")


def _pairs(record: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in record.items())


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
    """The reason, if there is one; then the page as a link, and the names of the tables."""
    reason, _, files = evidence.rpartition("; ")
    names = files.split(", ")
    page = html.escape(names[0].removeprefix("notebooks/"))
    linked = f'<a href="{html.escape(pages)}{page}">{page.removesuffix(".html")}</a>, from '
    tables = ", ".join(f"<code>{_breakable(name)}</code>" for name in names[1:])
    return (f"{html.escape(reason)}; " if reason else "") + linked + tables


def _breakable(path: str) -> str:
    """A path that a narrow column can break between words."""
    return html.escape(path).replace("/", "/<wbr>").replace("_", "_<wbr>")
