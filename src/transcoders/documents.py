"""Pages made from Markdown documents, for those who read the article from a folder or site.

A code host renders Markdown, and a browser does not.
"""

import re
from html import unescape
from pathlib import Path

from transcoders.contents import Place
from transcoders.layout import ARTICLE
from transcoders.notebooks import render_page
from transcoders.templates import SCROLLING

LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)\.(md|ipynb)((?:#[^)\s]*)?)\)")
ANCHOR = re.compile(r'(id="|href="#)([^"]+)"')


def has_page(document: Path) -> bool:
    """Whether a document can have a page: Markdown in ``docs/`` can."""
    return document.parent == ARTICLE.parent and document.suffix == ".md"


def page_beside(document: Path) -> Path:
    """Where the page of a document is; the document itself, if it has none."""
    return document.with_suffix(".html") if has_page(document) else document


def document_page(document: Path, documents: list[Path]) -> str:
    """A document as a page.

    Its links to notebooks of results and to other documents that have a page lead to pages.
    Headings have the addresses that a code host gives them.

    Args:
        document: a file of Markdown.
        documents: all that have a page.
    """
    from nbformat.v4 import new_markdown_cell, new_notebook

    pages = {path.resolve() for path in documents}

    def to_page(link: re.Match[str]) -> str:
        name, kind, heading = link.groups()
        target = (document.parent / f"{name}.{kind}").resolve()
        is_page = target in pages or (kind == "ipynb" and "results" in target.parts)
        return f"]({name}.{'html' if is_page else kind}{heading})"

    text = LINK.sub(to_page, document.read_text(encoding="utf-8"))
    notebook = new_notebook(cells=[new_markdown_cell(text, id="document")])
    page = ANCHOR.sub(_as_on_a_code_host, render_page(notebook, Place("index.html")))
    return page.replace("<table>", f"{SCROLLING}<table>").replace("</table>", "</table></div>")


def _as_on_a_code_host(anchor: re.Match[str]) -> str:
    before, heading = anchor.groups()
    if before == 'id="' and heading in ("content", "all-code"):
        return anchor.group()
    return before + re.sub(r"[^\w-]", "", unescape(heading).lower()) + '"'
