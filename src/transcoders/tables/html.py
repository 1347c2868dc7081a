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
    formats: dict[Any, Any],
    *,
    name: str,
    bold: "pd.Series[bool] | None" = None,
) -> str:
    """A plain table. Texts are escaped, except ``Markup``, and flush left, like their headings.

    Args:
        rows: what to show. The column names are the headings.
        formats: how to write numbers, by column.
        name: the table's class in CSS.
        bold: whether to set a row in bold, for each row.
    """
    # The result is text: a notebook that shows an object also keeps its memory address.
    kinds = ["" if column in formats else ' class="text"' for column in rows]
    headings = "".join(
        f'<th scope="col"{kind}>{escape(column)}</th>'
        for kind, column in zip(kinds, rows, strict=True)
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
        f'<table class="{escape(name)}">\n<thead><tr>{headings}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table>\n"
    )


def _written(value: Any, how: Any) -> str:
    """A value in a cell; nothing where it is missing."""
    if pd.isna(value):
        return ""
    if how is None:
        return str(escape(value))
    return str(escape(how(value) if callable(how) else how.format(value)))
