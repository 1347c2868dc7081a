"""The page to begin with: claims, figures, pages. It opens from a folder, without a network."""

import os
from pathlib import Path

from markupsafe import Markup

from transcoders.claims import count_verdicts
from transcoders.config import Scale
from transcoders.files import read_table
from transcoders.layout import Layout
from transcoders.tables.claims import claims_table
from transcoders.templates import render, stylesheet

FIGURES = [
    ("fig3_tradeoff", "figure3", "Figure 3: sparsity against faithfulness, by kind"),
    ("gap_by_tokens", "why", "The gap between the kinds, by how many tokens they saw"),
    ("fig4_greater_than", "greater_than", "Figure 4: how few features do the task"),
    ("fig5_dla", "greater_than", "Figure 5: which years drive a feature, and which it raises"),
    ("greater_than_where", "greater_than", "Where the model decides what comes after 17"),
    ("circuit_greater-than", "circuits", "A circuit for greater-than, on one prompt"),
    ("circuits_verification", "circuits", "How circuits hold up in the real model"),
    ("interpretability_automatic", "interpretability", "Features measured without people"),
    ("case_studies_systematic", "case_studies", "What weights alone predict about features"),
    ("training_curves", "training", "Training curves"),
]
"""Each figure's name, the page that explains it, and its caption."""
PAGES = {
    "claims": "the paper's claims, with measures, intervals and verdicts",
    "figure3": "transcoders against SAEs",
    "why": "why one kind does better: data, steps, width and other controls",
    "circuits": "circuits, and how they were checked",
    "greater_than": "the greater-than case study",
    "interpretability": "what features are about; Table 1",
    "case_studies": "blind case studies; Table 4",
    "training": "how the dictionaries were trained",
}
DOCUMENTS = {
    "README.md": "what this is, and how to run it",
    "docs/findings.md": "what was found, in words, and a list of all results",
    "docs/your_own_questions.md": "how to trace a circuit, rate features, or do a blind study",
    "config/README.md": "every setting, and the reason for its value",
    "docs/paper_scale.md": "the paper's own scale: what it needs, and what we had to choose",
    "docs/checklist.md": "what reviewers of artifacts ask, and where the answers are",
    "benchmarks/README.md": "measurements of speed and memory",
    "profiles/README.md": "how to run on a cluster",
}


def landing_page(scale: Scale, layout: Layout, destination: Path) -> str:
    """The page as text, without the figures and pages that the scale does not have.

    Args:
        scale: the scale, which describes itself.
        layout: where figures and pages are, relative to the current folder.
        destination: where the page will be. Its links start there.
    """

    def link(path: Path) -> str:
        return Path(os.path.relpath(path, destination.parent)).as_posix()

    def page(name: str) -> Path:
        return layout.notebook(name).with_suffix(".html")

    pictures = [(layout.figure(name), page(of), caption) for name, of, caption in FIGURES]
    figures = [
        (link(path.with_suffix(".png")), link(path.with_suffix(".pdf")), link(of), caption)
        for path, of, caption in pictures
        if path.with_suffix(".png").exists()
    ]
    claims = read_table(layout.claims)
    text = render(
        "transcoders",
        "landing.html.j2",
        style=Markup(stylesheet()),
        scale=scale,
        verdicts=count_verdicts(claims),
        claims=Markup(claims_table(claims, pages=link(page("claims").parent) + "/")),
        figures=figures,
        pages=[(link(page(n)), n, about) for n, about in PAGES.items() if page(n).exists()],
        documents=[(link(Path(name)), name, about) for name, about in DOCUMENTS.items()],
    )
    return text + "\n"
