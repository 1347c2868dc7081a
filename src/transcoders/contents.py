"""Which pages and figures a scale has, and the way between them."""

import os
from pathlib import Path
from typing import NamedTuple

from transcoders.config import Scale
from transcoders.files import read_table
from transcoders.layout import Layout

PAGES = {
    "figure3": ("Transcoders and SAEs", "Figure 3: sparsity against faithfulness, by kind"),
    "why": ("Why one does better", "data, steps, width and other controls"),
    "circuits": ("Circuits", "what makes a feature fire, and how the answer was checked"),
    "greater_than": ("Greater-than", "the case study of section 5: Figures 4 and 5"),
    "interpretability": ("Interpretability", "what features are about; Table 1"),
    "case_studies": ("Case studies", "blind guesses from weights and circuits; Table 4"),
    "training": ("Training", "how the dictionaries were trained"),
    "claims": ("All claims", "measures, intervals, and how a value becomes a verdict"),
}
"""The title of every page and what it is about, in the order in which they are read."""
STUDY = "case_study_"
"""Before a study's name in the name of its page."""
BRIEF = "_brief"
"""After the name of a figure's part that can be read in a narrow column."""
CAPTIONS = {
    "fig3_gap": "What decides Figure 3: the gap at equal sparsity, against the margin",
    "fig3_tradeoff": "Figure 3: sparsity (L0) against faithfulness (cross entropy), by kind",
    "gap_by_tokens": "The gap between transcoders and SAEs, by the tokens they were trained on",
    "fig4_greater_than": "Figure 4: how much of the task is left with few features or neurons",
    "fig5_dla": (
        "Figure 5: features of the MLP that attribution points to. Left: on which years each is "
        "active. Right, from weights: which answers it raises, and which years drive it"
    ),
    "greater_than_where": "Where the model decides which year may follow",
    "circuits_verification": "How circuits hold up when the real model is ablated",
    "circuits_replacement": "What the model loses when transcoders replace its MLPs",
    "circuits_controls": (
        "Circuits beside other sets of as many parts. A circuit stands out if its dot is right of "
        "all ticks"
    ),
    "circuits_steering": "What attribution predicts when parts are scaled, and what happens",
    "interpretability_automatic": "Features, measured without people",
    "case_studies_systematic": "What weights alone predict about features",
    "training_curves": "Training curves of all dictionaries",
}
"""Of figures. Readers who do not see a figure hear its caption."""


class Link(NamedTuple):
    """The address of a page, relative to the page with the link, and what it is called."""

    href: str
    title: str


class Place(NamedTuple):
    """Where a page stands among the pages of its scale."""

    article: str
    """The address of the landing page."""
    pages: list[Link]
    here: str
    """The address of the page, or of the page that it belongs to."""
    before: Link | None
    after: Link | None
    figures: Path
    """The folder of the scale's figures, relative to the current folder."""
    to_figures: str
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
    return PAGES[page][0] if page in PAGES else page.removeprefix(STUDY).replace("-", " ")


def page_of(evidence: str) -> str:
    """The page that shows a row of ``claims.csv``, by the row's column ``evidence``.

    That reads ``note; note; notebooks/PAGE.html, TABLE, TABLE``, often without notes.
    """
    return evidence.rpartition("; ")[2].partition(".html")[0].removeprefix("notebooks/")


def tables_of(evidence: str) -> list[str]:
    """The tables, or patterns of tables, that a row of ``claims.csv`` was judged by."""
    return evidence.rpartition("; ")[2].split(", ")[1:]


def caption_of(figure: str) -> str:
    """What a figure shows."""
    if figure in CAPTIONS:
        return CAPTIONS[figure]
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
