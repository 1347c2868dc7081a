"""The article to begin with. It opens from a folder, without a network, and knows no result."""

from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from markupsafe import Markup

from transcoders.claims import count_verdicts
from transcoders.claims.words import SIGNS, together, value_in_words, verdict_in_words
from transcoders.config import Scale
from transcoders.contents import (
    PAGES,
    caption_of,
    pages_of,
    relative,
    studies_of,
    title_of,
    whole_of,
)
from transcoders.files import read_table
from transcoders.gaps.words import answer
from transcoders.layout import Layout
from transcoders.templates import render, script, stylesheet


class Chapter(NamedTuple):
    """A part of the story. Its answer comes from the tables."""

    pages: tuple[str, ...]
    """Notebooks that judge its claims; the first one that the scale has explains the rest."""
    title: str
    question: str
    measured: str
    differs: str
    figures: tuple[str, ...]
    """The chapter's pictures: those of them that the scale has."""
    rule: str
    """What to ask Snakemake for."""


CHAPTERS = [
    Chapter(
        ("why", "figure3"),
        "Are transcoders as good as SAEs?",
        "A dictionary stands in for one MLP of a language model. At equal sparsity (L0, the number "
        "of features active on a token), does a transcoder harm the model more than a sparse "
        "autoencoder (SAE) does?",
        "Each dictionary takes the MLP's place in the model. The rise of the cross entropy on "
        "documents that training never saw is compared with what the MLP is worth. The "
        "dictionaries of a site start alike and see the same batches.",
        "The paper trains on 60 million tokens, compares one amount of data and gives no "
        "intervals. Models, text and amounts of this scale are named below.",
        ("fig3_gap", "gap_by_tokens", "fig3_tradeoff"),
        "figure3",
    ),
    Chapter(
        ("circuits",),
        "Circuits: why did this fire here?",
        "Which parts of a model, through which paths, make a feature active or an answer likely?",
        "A greedy search follows attribution back through features and heads. The circuit is then "
        "tested in the real model: its parts are removed, kept alone and scaled, and other sets "
        "of as many parts are measured beside it.",
        "The paper has a transcoder on every layer of GPT2-small and shows circuits without these "
        "tests. Where a layer has none, its MLP is a node that no path goes through.",
        ("circuit_greater-than_brief", "circuits_controls"),
        "circuits",
    ),
    Chapter(
        ("greater_than",),
        "Greater-than: a task from end to end",
        "“The war lasted from the year 1732 to the year 17…”: how does a model know that the war "
        "did not end before it began, and how few features are enough?",
        "Attribution says where the model decides. All but the best features, or all but the best "
        "neurons, of that MLP are then replaced by their means.",
        "The paper studies GPT2-small. Another model has layers of its own and may write years in "
        "other tokens.",
        ("fig4_greater_than",),
        "greater_than",
    ),
    Chapter(
        ("interpretability",),
        "What are features about?",
        "Are a transcoder's features as easy to understand as those of an SAE, and do fewer of "
        "them merely name a token?",
        "All live features are measured by rules. Raters who do not know the kind can judge a "
        "sample of them.",
        "The paper has one rater. The measures without people are ours.",
        ("interpretability_automatic",),
        "interpretability",
    ),
    Chapter(
        ("case_studies",),
        "Case studies: guess first, look later",
        "Can someone who sees only weights and circuits say what a feature is about?",
        "A hypothesis is written down before any text is seen. It is scored as a rule: where the "
        "feature is active, and where it is silent.",
        "The paper's authors chose their features and judged by eye. Here most features are drawn "
        "at random, and a rule judges.",
        ("case_studies_systematic",),
        "case_studies",
    ),
]
DOCUMENTS = {
    "README.md": "what this is, and how to run it",
    "docs/running.md": "time, memory, interruptions, and whether your numbers are ours",
    "docs/findings.md": "what was found, in words, and a list of all results",
    "docs/your_own_questions.md": "how to trace a circuit, rate features, or do a blind study",
    "docs/extending.md": "another model, text, site or kind of dictionary",
    "docs/code_map.md": "from the paper's sections to the code",
    "config/README.md": "every setting, and the reason for its value",
    "docs/paper_scale.md": "the paper's own scale: what it needs, and what we had to choose",
    "docs/checklist.md": "what reviewers of artifacts ask, and where the answers are",
    "benchmarks/README.md": "measurements of speed and memory",
    "profiles/README.md": "how to run on a cluster",
}
REHEARSAL = "smoke"
"""A scale that tests the machinery. Its verdicts mean nothing, so other scales do not show them."""


def landing_page(scale: Scale, layout: Layout, destination: Path) -> str:
    """The article as text, without the figures, chapters and links that the scale does not have.

    Args:
        scale: the scale, which describes itself.
        layout: where tables, figures and pages are, relative to the current folder.
        destination: where the page will be. Its links start there.
    """
    folder = destination.parent
    claims = read_table(layout.claims)
    chapters = [
        chapter
        for each in CHAPTERS
        if (chapter := _chapter(each, scale, layout, claims, folder)) is not None
    ]
    verdicts = {
        name: read_table(Layout(name).claims) for name in (scale.name, *others_judged(scale.name))
    }
    text = render(
        "transcoders",
        "landing.html.j2",
        style=Markup(stylesheet()),
        script=Markup(script()),
        scale=scale,
        config=relative(layout.config, folder),
        verdicts=count_verdicts(claims),
        judging=relative(_page(layout, "claims"), folder),
        short=answer(read_table(layout.why)) if layout.why.exists() else None,
        chapters=chapters,
        signs=SIGNS,
        scales=list(verdicts),
        claims=_overview(verdicts, folder),
        pages=[
            (relative(page, folder), title_of(name), PAGES[name][1])
            for name in pages_of(scale)
            if (page := _page(layout, name)).exists()
        ],
        documents=[
            (relative(Path(name), folder), name, about) for name, about in DOCUMENTS.items()
        ],
    )
    return text + "\n"


def others_judged(scale: str) -> list[str]:
    """The other scales that have a table of claims, by name."""
    found = sorted(path.parent.name for path in Path("results").glob("*/claims.csv"))
    return [name for name in found if name not in (scale, REHEARSAL)]


def _page(layout: Layout, name: str) -> Path:
    return layout.notebook(name).with_suffix(".html")


def _chapter(
    chapter: Chapter, scale: Scale, layout: Layout, claims: pd.DataFrame, folder: Path
) -> dict[str, Any] | None:
    """What the template shows of a chapter; None if the scale has none of its pages."""
    pages = [name for name in chapter.pages if _page(layout, name).exists()]
    if not pages:
        return None
    judged = claims[[_page_of(row) in pages for row in claims.to_dict("records")]]
    tables = {name: None for row in judged["evidence"] for name in _tables(row)}
    paths = [path for name in tables for path in sorted(layout.results.glob(name))]
    rules = [name for name in (*pages, chapter.rule) if name != "why"]
    rule = "gap_by_tokens" if pages[0] == "why" else rules[-1]
    chosen = "" if scale.name == "laptop" else f" --config scale={scale.name}"
    return {
        **chapter._asdict(),
        "id": chapter.pages[-1],
        "findings": _findings(judged),
        "pictures": [
            (
                relative(layout.figure(name), folder),
                relative(layout.figure(whole_of(name)), folder),
                caption_of(name),
            )
            for name in chapter.figures
            if layout.figure(f"{name}.png").exists()
        ],
        "links": [(relative(_page(layout, n), folder), title_of(n)) for n in pages],
        "more": [
            (relative(path, folder), name)
            for path, name in _more(chapter.pages[-1], scale, layout)
            if path.exists()
        ],
        "tables": [
            (relative(path, folder), path.relative_to(layout.results).as_posix()) for path in paths
        ],
        "command": f"snakemake --cores all {rule}{chosen}",
    }


def _more(page: str, scale: Scale, layout: Layout) -> list[tuple[Path, str]]:
    """What a reader can open beside the page itself."""
    if page == "circuits":
        cases = [case.name for case in scale.circuits.cases]
        own = (Path("docs/your_own_questions.md"), "a prompt of your own")
        pages = [(layout.circuit(case) / "circuit.html", f"interactive: {case}") for case in cases]
        return [*pages, own]
    if page == "interpretability":
        rated = scale.rated("transcoder")
        named = f"interactive: features of layer {rated.site.layer}"
        return [
            (layout.features / rated.name / "index.html", named),
            (layout.features / "index.html", "interactive: features of all dictionaries"),
        ]
    if page == "case_studies":
        return [(_page(layout, name), title_of(name)) for name in studies_of(layout)]
    return []


def _page_of(row: dict[Any, Any]) -> str:
    """The notebook that shows a row of ``claims.csv``."""
    return str(row["evidence"]).rpartition("; ")[2].partition(".html")[0].removeprefix("notebooks/")


def _tables(evidence: str) -> list[str]:
    return evidence.rpartition("; ")[2].split(", ")[1:]


def _findings(judged: pd.DataFrame) -> list[dict[str, Any]]:
    """Each claim or extension of a chapter with its verdicts, one for each site."""
    judged = judged[judged["kind"] != "check"]
    ids = judged["claim"].str.split(":").str[0]
    return [
        {
            "kind": rows.iloc[0]["kind"],
            "statement": rows.iloc[0]["statement"],
            "verdicts": _verdicts(rows),
        }
        for _, rows in judged.groupby(ids, sort=False)
    ]


def _verdicts(rows: pd.DataFrame) -> list[tuple[str, str, str]]:
    """Site (empty if there is one verdict for all), verdict and value of a claim's rows."""
    return [
        (row["claim"].partition(":")[2], verdict_in_words(row), value_in_words(row))
        for row in rows.to_dict("records")
    ]


def _overview(scales: dict[str, pd.DataFrame], folder: Path) -> list[dict[str, Any]]:
    """The paper's claims, with what every scale says of them."""
    claims: dict[str, dict[str, Any]] = {}
    for scale, table in scales.items():
        of_paper = table[table["kind"] == "claim"]
        for claim, rows in of_paper.groupby(of_paper["claim"].str.split(":").str[0], sort=False):
            first = rows.iloc[0].to_dict()
            words = {key: first[key] for key in ("statement", "section", "paper_value")}
            shown = claims.setdefault(str(claim), words | {"scales": {}, "found": []})
            page = _page(Layout(scale), _page_of(first))
            verdict = together(set(rows["verdict"]))
            shown["found"].append(verdict)
            shown["scales"][scale] = {
                "verdict": f"{SIGNS[verdict]} {verdict}",
                "details": _verdicts(rows),
                "page": relative(page, folder) if page.exists() else None,
            }
    return list(claims.values())
