"""The page to begin with: claims, figures, pages. It opens from a folder, without a network."""

import os
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment
from markupsafe import Markup

from transcoders.config import Scale
from transcoders.files import read_table
from transcoders.layout import Layout
from transcoders.tables.claims import claims_table, describe_verdicts


class Figure(NamedTuple):
    """A figure, the page that explains it, and what it shows."""

    name: str
    page: str
    caption: str


FIGURES = [
    Figure("fig3_tradeoff", "figure3", "Figure 3: sparsity against faithfulness, by kind"),
    Figure("fig4_greater_than", "greater_than", "Figure 4: how few features do the task"),
    Figure("fig5_dla", "greater_than", "Figure 5: which years drive a feature, which it raises"),
    Figure("greater_than_where", "greater_than", "Where the model decides what comes after 17"),
    Figure("circuit_greater-than", "circuits", "A circuit for greater-than, on one prompt"),
    Figure("circuits_verification", "circuits", "What circuits are worth in the real model"),
    Figure("interpretability_automatic", "interpretability", "Features measured without people"),
    Figure("case_studies_systematic", "case_studies", "What weights alone predict of features"),
    Figure("training_curves", "training", "How training went"),
]
PAGES = {
    "claims": "the paper's claims, with measures, intervals and verdicts",
    "figure3": "transcoders against SAEs",
    "circuits": "circuits, and checks of them",
    "greater_than": "the greater-than case study",
    "interpretability": "what features are about; Table 1",
    "case_studies": "blind case studies; Table 4",
    "training": "how the dictionaries were trained",
}
DOCUMENTS = {
    "README.md": "what this is and how to run it",
    "docs/findings.md": "what was found, in words, and every file that comes out",
    "docs/your_own_questions.md": "trace a circuit, rate features, do a blind study",
    "config/README.md": "every setting, and why it has its value",
    "docs/paper_scale.md": "the paper's own scale: what it takes, what was chosen",
    "docs/checklist.md": "what reviewers of artifacts ask, and where it is answered",
    "benchmarks/README.md": "speed and memory, measured",
    "profiles/README.md": "clusters",
}


def landing_page(scale: Scale, layout: Layout, destination: Path) -> str:
    """The page as text; figures and pages that the scale does not have are left out.

    Args:
        scale: for its description.
        layout: where figures and pages are, relative to the current folder.
        destination: where the page will be, for its links.
    """

    def link(path: Path) -> str:
        return Path(os.path.relpath(path, destination.parent)).as_posix()

    def page(name: str) -> Path:
        return layout.notebook(name).with_suffix(".html")

    claims = read_table(layout.claims)
    figures: list[dict[str, Any]] = [
        {
            "picture": link(layout.figure(figure.name).with_suffix(".png")),
            "pdf": link(layout.figure(figure.name).with_suffix(".pdf")),
            "page": link(page(figure.page)),
            "caption": figure.caption,
        }
        for figure in FIGURES
        if layout.figure(figure.name).with_suffix(".png").exists()
    ]
    style = files("transcoders").joinpath("page.css").read_text(encoding="utf-8")
    template = files("transcoders").joinpath("landing.html.j2").read_text(encoding="utf-8")
    return (
        Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
        .from_string(template)
        .render(
            style=Markup(style),
            scale=scale,
            verdicts=describe_verdicts(claims).strip("*"),
            claims=Markup(claims_table(claims, pages=link(page("claims").parent) + "/")),
            figures=figures,
            pages=[(link(page(n)), n, about) for n, about in PAGES.items() if page(n).exists()],
            documents=[(link(Path(name)), name, about) for name, about in DOCUMENTS.items()],
        )
        + "\n"
    )
