"""The claims as tables, and what the run ran on."""

import html
from typing import Any

import pandas as pd
from markupsafe import Markup

from transcoders.claims.words import Row, value_in_words, verdict_in_words
from transcoders.contents import page_of, tables_of
from transcoders.tables.html import html_table


def claims_table(claims: pd.DataFrame, *, kind: str = "claim") -> str:
    """One row a claim: the paper's statement and value, the value here, the verdict, and links.

    Args:
        claims: ``claims.csv``.
        kind: which rows: the paper's claims, checks, or extensions.
    """
    rows = [
        {
            f"{kind} (section of the paper)": Markup(_claim(row)),
            "verdict": Markup(f"<b>{verdict_in_words(row)}</b>"),
            "here": Markup(_value(row)),
            "the paper": row["paper_value"],
            "evidence": Markup(_links(row["evidence"])),
        }
        for row in claims[claims["kind"] == kind].to_dict("records")
    ]
    # As objects: a column of strings would forget that they are markup.
    return html_table(pd.DataFrame(rows, dtype=object), {}, name=f"{kind}s")


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
    return f"<b>{html.escape(value_in_words(row))}</b>: {html.escape(row['unit'])}"


def _links(evidence: str) -> str:
    """The notes, if there are any; then links to the page and to the tables."""
    notes, page = evidence.rpartition("; ")[0], html.escape(page_of(evidence))
    exist = not notes.startswith("this scale has no ")  # else it may not have the page either
    linked = f'<a href="{page}.html">{page}</a>, from ' if exist else "from "
    tables = ", ".join(_table(name, linked=exist) for name in tables_of(evidence))
    return (f"{html.escape(notes)}; " if notes else "") + linked + tables


def _table(name: str, *, linked: bool) -> str:
    """A table's name; a link for a page in the folder of notebooks, unless it is a pattern."""
    code = f"<code>{_breakable(name)}</code>"
    return f'<a href="../{html.escape(name)}">{code}</a>' if linked and "*" not in name else code


def _breakable(path: str) -> str:
    """A path that a narrow column can break between words."""
    return html.escape(path).replace("/", "/<wbr>").replace("_", "_<wbr>")
