"""Data frames as HTML tables, and texts in Markdown."""

from typing import Any

import pandas as pd

from transcoders.templates import render

MARKS = str.maketrans(
    {"\n": "⏎", "&": "&amp;", "<": "&lt;"} | {mark: f"&#{ord(mark)};" for mark in "\\`*_~!$(/"}
)


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
    """A plain table. Texts are escaped, except ``Markup``.

    Args:
        rows: what to show.
        formats: how to write numbers, by column. The other columns are texts.
        name: the table's class in CSS.
        headings: of columns whose names are not their headings.
        bold: whether to set a row in bold, for each row.
    """
    # The result is text: a notebook that shows an object also keeps its memory address.
    table = render(
        __package__, "table.html.j2",
        rows=rows, formats=formats, name=name, headings=headings or {},
        bold=[False] * len(rows) if bold is None else list(bold), written=_written,
    )  # fmt: skip
    return f"{table}\n"


def _written(value: Any, how: str | None) -> Any:
    """A value in a cell; nothing where it is missing."""
    if pd.isna(value):
        return ""
    return value if how is None else how.format(value)
