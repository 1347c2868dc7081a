"""Data frames as HTML tables, and texts in Markdown."""

from typing import Any

import pandas as pd

MARKS = str.maketrans(
    {"\n": "⏎", "&": "&amp;", "<": "&lt;"} | {mark: f"&#{ord(mark)};" for mark in "\\`*_~!$(/"}
)


def in_markdown(text: str) -> str:
    """A text in a form that Markdown shows literally: no tags, links, pictures or formulas."""
    return text.translate(MARKS)


def html_table(rows: pd.DataFrame, formats: dict[Any, Any], *, name: str) -> str:
    """A plain table. Texts are escaped and flush left, like their headings.

    Args:
        rows: what to show. The column names are the headings.
        formats: how to write numbers, by column.
        name: the table's name in CSS. A random one would change the page each time.
    """
    # The result is text: a notebook that shows an object also keeps its memory address.
    texts = [column for column in rows if column not in formats]
    styler = rows.style.hide(axis="index").format(formats, escape="html", na_rep="")
    styler = styler.set_uuid(name).set_properties(subset=texts, **{"text-align": "left"})
    styler = styler.set_table_styles(
        {text: [{"selector": "th", "props": "text-align: left"}] for text in texts}
    )
    return styler.to_html()
