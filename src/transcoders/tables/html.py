"""Data frames as HTML tables, and texts in Markdown."""

from typing import Any

import pandas as pd

MARKS = str.maketrans(
    {"\n": "⏎", "&": "&amp;", "<": "&lt;"} | {mark: f"&#{ord(mark)};" for mark in "\\`*_~!$(/"}
)


def in_markdown(text: str) -> str:
    """A text of tokens so that Markdown shows it as it is: no tags, links, pictures or formulas."""
    return text.translate(MARKS)


def html_table(rows: pd.DataFrame, formats: dict[Any, Any], *, name: str) -> str:
    """A plain table; texts are escaped and set flush left, and so are their headings.

    Args:
        rows: what to show, with headings as column names.
        formats: of numbers, by column.
        name: of the table in the page's CSS; otherwise random, and the page never the same twice.
    """
    # As text, since a notebook would keep the memory address of an object beside its HTML.
    texts = [column for column in rows if column not in formats]
    styler = rows.style.hide(axis="index").format(formats, escape="html", na_rep="")
    styler = styler.set_uuid(name).set_properties(subset=texts, **{"text-align": "left"})
    styler = styler.set_table_styles(
        {text: [{"selector": "th", "props": "text-align: left"}] for text in texts}
    )
    return styler.to_html()
