"""Data frames as HTML tables, and texts in Markdown."""

from typing import Any

import pandas as pd
from markupsafe import escape

MARKS = str.maketrans(
    {"\n": "⏎", "&": "&amp;", "<": "&lt;"} | {mark: f"&#{ord(mark)};" for mark in "\\`*_~!$(/"}
)

BOLD = ' style="font-weight: bold"'
"""Of a row. A notebook has no style sheet of ours, so the row itself says it."""


def in_markdown(text: str) -> str:
    """A text in a form that Markdown shows literally: no tags, links, pictures or formulas."""
    return text.translate(MARKS)


def html_table(
    rows: pd.DataFrame,
    formats: dict[str, str],
    *,
    name: str,
    headings: dict[str, str] | None = None,
    bold: "pd.Series[bool] | None" = None,
) -> str:
    """A plain table. Texts are escaped, except ``Markup``, and flush left, like their headings.

    Args:
        rows: what to show.
        formats: how to write numbers, by column.
        name: the table's class in CSS.
        headings: of columns whose names are not their headings.
        bold: whether to set a row in bold, for each row.
    """
    # The result is text: a notebook that shows an object also keeps its memory address.
    kinds = ["" if column in formats else ' class="text"' for column in rows]
    heads = "".join(
        f'<th scope="col"{kind}>{escape(heading)}</th>'
        for kind, heading in zip(kinds, rows.rename(columns=headings or {}), strict=True)
    )
    lines = [
        "".join(
            f"<td{kind}>{_written(value, formats.get(column))}</td>"
            for kind, column, value in zip(kinds, rows, values, strict=True)
        )
        for values in rows.itertuples(index=False, name=None)
    ]
    looks = [""] * len(lines) if bold is None else [BOLD if each else "" for each in bold]
    body = "\n".join(f"<tr{look}>{line}</tr>" for look, line in zip(looks, lines, strict=True))
    return (
        f'<table class="{escape(name)}">\n<thead><tr>{heads}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table>\n"
    )


def _written(value: Any, how: str | None) -> str:
    """A value in a cell; nothing where it is missing."""
    if pd.isna(value):
        return ""
    return escape(value if how is None else how.format(value))
