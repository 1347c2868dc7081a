"""Which pages and figures a scale has, and the way between them."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from transcoders.config import Scale
from transcoders.files import read_table
from transcoders.layout import Layout
from transcoders.templates import template

STORY: dict[str, Any] = yaml.safe_load(template("transcoders", "article.yaml"))
"""The words of the article and of the pages around it; the file says what is what."""
PAGES: dict[str, dict[str, str]] = STORY["pages"]
"""The title of every page and what it is about, in the order in which they are read."""
STUDY = "case_study_"
"""Before a study's name in the name of its page."""
BRIEF = "_brief"
"""After the name of a figure, the name of its part that fits a narrow column."""


class Link(NamedTuple):
    """The address of a page, relative to the page with the link, and what it is called."""

    href: str
    title: str


class Place(NamedTuple):
    """Where a page stands among the pages of its scale."""

    article: str
    """The address of the landing page."""
    pages: Sequence[Link] = ()
    here: str = ""
    """The address of the page, or of the page that it belongs to."""
    before: Link | None = None
    after: Link | None = None
    figures: Path | None = None
    """The folder of the scale's figures, relative to the current folder."""
    to_figures: str = ""
    """The same, relative to the page."""


def pages_of(scale: Scale) -> list[str]:
    """The names of the notebooks that a scale has, case studies apart."""
    has = {
        "figure3": bool(scale.groups),
        "why": scale.sweeps_data,
        "circuits": bool(scale.circuits.cases),
        "greater_than": scale.greater_than is not None,
        "interpretability": scale.interpretability is not None,
        "case_studies": scale.interpretability is not None,
        "training": bool(scale.groups),
        "claims": True,
    }
    return [name for name in PAGES if has[name]]


def studies_of(layout: Layout) -> list[str]:
    """The names of the pages of case studies, in the order of Table 4."""
    if not layout.table4.exists():
        return []
    return [f"{STUDY}{study}" for study in read_table(layout.table4)["study"]]


def title_of(page: str) -> str:
    """What a page is called where it is linked to."""
    return PAGES[page]["title"] if page in PAGES else page.removeprefix(STUDY).replace("-", " ")


def page_of(evidence: str) -> str:
    """The page that shows a row of ``claims.csv``, by the row's column ``evidence``.

    The column reads ``note; note; notebooks/PAGE.html, TABLE, TABLE``, often without notes.
    """
    return evidence.rpartition("; ")[2].partition(".html")[0].removeprefix("notebooks/")


def tables_of(evidence: str) -> list[str]:
    """The tables, or patterns of tables, that a row of ``claims.csv`` was judged by."""
    return evidence.rpartition("; ")[2].split(", ")[1:]


def caption_of(figure: str) -> str:
    """What a figure shows."""
    if figure in STORY["captions"]:
        return str(STORY["captions"][figure])
    name = whole_of(figure).removeprefix("circuit_").replace("-", " ")
    circuit = f"circuit “{name}”: causes below, effects above"
    if figure.endswith(BRIEF):
        return f"The strongest parts of the {circuit}. The enlarged picture shows more"
    return f"The {circuit}"


def whole_of(figure: str) -> str:
    """The figure that a brief one is a part of. Other figures are whole."""
    return figure.removesuffix(BRIEF)


def place_of(page: str, scale: Scale, layout: Layout) -> Place:
    """The place of a page. Its neighbours are the pages before and after, or the studies."""
    pages, study = pages_of(scale), page.startswith(STUDY)
    row = studies_of(layout) if study else pages
    number = row.index(page)
    folder = layout.notebook(page).parent

    def link(name: str) -> Link:
        return Link(f"{name}.html", title_of(name))

    return Place(
        article=relative(layout.landing_page, folder),
        pages=[link(name) for name in pages],
        here="case_studies.html" if study else f"{page}.html",
        before=link(row[number - 1]) if number else None,
        after=link(row[number + 1]) if number + 1 < len(row) else None,
        figures=layout.figures,
        to_figures=relative(layout.figures, folder),
    )


def relative(path: Path, folder: Path) -> str:
    """The address of a file for a page in ``folder``."""
    return Path(os.path.relpath(path, folder)).as_posix()
