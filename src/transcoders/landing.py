"""The article to begin with. It opens from a folder, without a network, and knows no result."""

from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from markupsafe import Markup

from transcoders.claims import count_verdicts
from transcoders.claims.words import (
    SIGNS,
    notes_in_words,
    together,
    value_in_words,
    verdict_in_words,
)
from transcoders.config import Scale
from transcoders.contents import (
    PAGES,
    STUDY,
    caption_of,
    page_of,
    pages_of,
    relative,
    tables_of,
    title_of,
    whole_of,
)
from transcoders.documents import has_page, page_beside
from transcoders.files import read_table
from transcoders.gaps.words import answer
from transcoders.layout import ARTICLE, Layout
from transcoders.rating.records import NO_PERSON
from transcoders.templates import render, script, stylesheet, template

REHEARSAL = "smoke"
"""A scale that tests the machinery. Its verdicts mean nothing, so other scales do not show them."""


def read_story() -> dict[str, Any]:
    """The chapters of the article, without their answers, and the documents at its end."""
    found: dict[str, Any] = yaml.safe_load(template("transcoders", "article.yaml"))
    return found


def documents_of(layout: Layout) -> list[Path]:
    """The documents that have a page: those beside the article. Other scales' lead there too."""
    if layout.landing_page != ARTICLE:
        return []
    named = map(Path, read_story()["documents"])
    return [path for path in named if has_page(path)]


def landing_page(scale: Scale, layout: Layout, destination: Path) -> str:
    """The article as text, without the figures, chapters and links that the scale does not have.

    Args:
        scale: the scale, which describes itself.
        layout: where tables, figures and pages are, relative to the current folder.
        destination: where the page will be. Its links start there.
    """
    folder = destination.parent
    story, claims = read_story(), read_table(layout.claims)
    chapters = [_chapter(each, scale, layout, claims, folder) for each in story["chapters"]]
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
        short=_in_short(story["short"], claims),
        trained=_tokens_trained(layout),
        elsewhere=[
            (relative(other.landing_page, folder), other.scale, _tokens_trained(other))
            for other in map(Layout, others_judged(scale.name))
            if other.landing_page.exists()
        ],
        trained_once=not claims["resampled"].str.contains("training runs").any(),
        why=answer(read_table(layout.why)) if layout.why.exists() else None,
        chapters=[chapter for chapter in chapters if chapter is not None],
        signs=SIGNS,
        scales=list(verdicts),
        claims=_overview(verdicts, folder),
        pages=[
            (relative(page, folder), title_of(name), PAGES[name][1])
            for name in pages_of(scale)
            if (page := _page(layout, name)).exists()
        ],
        documents=[
            (relative(page_beside(Path(name)), folder), name, about)
            for name, about in story["documents"].items()
        ],
    )
    return text + "\n"


def _in_short(sentences: dict[str, dict[str, str]], claims: pd.DataFrame) -> list[str]:
    """What the verdicts come to, in sentences. What was not tested is left out."""
    found, ids = [], claims["claim"].str.partition(":")[0]
    for claim, words in sentences.items():
        rows = claims[(ids == claim) & claims["verdict"].isin(words)]
        if "opening" not in words:
            for verdict, evidence in zip(rows["verdict"], rows["evidence"], strict=True):
                but = f" ({NO_PERSON})." if NO_PERSON in evidence else "."
                found.append(words[verdict].removesuffix(".") + but)
        elif len(rows):
            sites = _places(rows)
            by_verdict = [(words[each], sites[rows["verdict"] == each]) for each in words]
            parts = [f"{part} {_listed(list(at))}" for part, at in by_verdict if len(at)]
            found.append(f"{words['opening']} {', and '.join(parts)}.")
    return found


def _places(rows: pd.DataFrame) -> pd.Series:
    """The sites of a claim's rows, as a reader names them; empty if a row is about all sites."""
    sites = rows["claim"].str.partition(":")[2].str.rpartition("_layer")
    one_model = sites[0].nunique() == 1
    return (
        ("" if one_model else sites[0] + ", ") + sites[1].where(sites[2] == "", "layer ") + sites[2]
    )


def _listed(places: list[str]) -> str:
    """Sites one after another: ``layers 12, 20 and 24``."""
    if len(places) > 1 and all(place.startswith("layer ") for place in places):
        places = ["layers " + places[0].split()[1], *(place.split()[1] for place in places[1:])]
    *most, last = places
    return f"{', '.join(most)} and {last}" if most else last


def _tokens_trained(layout: Layout) -> str | None:
    """How many tokens the headline dictionaries saw; None if a scale trains none."""
    if not layout.evaluation.exists():
        return None
    table = read_table(layout.evaluation)
    return f"{table.loc[table['headline'], 'tokens_trained'].max() / 1e6:.2g} million"


def others_judged(scale: str) -> list[str]:
    """The other scales that have a table of claims, by name."""
    found = sorted(path.parent.name for path in Path("results").glob("*/claims.csv"))
    return [name for name in found if name not in (scale, REHEARSAL)]


def _page(layout: Layout, name: str) -> Path:
    return layout.notebook(name).with_suffix(".html")


def _chapter(
    chapter: dict[str, Any], scale: Scale, layout: Layout, claims: pd.DataFrame, folder: Path
) -> dict[str, Any] | None:
    """What the template shows of a chapter; None if the scale has none of its pages."""
    pages = [name for name in chapter["pages"] if _page(layout, name).exists()]
    if not pages:
        return None
    judged = claims[[page_of(evidence) in pages for evidence in claims["evidence"]]]
    tables = {name: None for evidence in judged["evidence"] for name in tables_of(evidence)}
    paths = [path for name in tables for path in sorted(layout.results.glob(name))]
    rules = [name for name in (*pages, chapter["rule"]) if name != "why"]
    rule = "gap_by_tokens" if pages[0] == "why" else rules[-1]
    chosen = "" if scale.name == "laptop" else f" --config scale={scale.name}"
    return {
        **chapter,
        "id": chapter["pages"][-1],
        "findings": _findings(judged),
        "summary": _summary(scale, layout) if pages[-1] == "circuits" else [],
        "pictures": [
            (
                relative(layout.figure(name), folder),
                relative(layout.figure(whole_of(name)), folder),
                f"{caption_of(name)}{_asked(name, scale)}",
            )
            for name in chapter["figures"]
            if layout.figure(f"{name}.png").exists()
        ],
        "links": [(relative(_page(layout, n), folder), title_of(n)) for n in pages],
        "more": [
            (relative(page_beside(path), folder), name)
            for path, name in _more(chapter["pages"][-1], scale, layout)
            if path.exists()
        ],
        "tables": [
            (relative(path, folder), path.relative_to(layout.results).as_posix()) for path in paths
        ],
        "command": f"snakemake --cores all {rule}{chosen}",
    }


def _asked(figure: str, scale: Scale) -> str:
    """What a picture of a circuit is an answer to."""
    named = [case for case in scale.circuits.cases if whole_of(figure) == f"circuit_{case.name}"]
    return "".join(f". The prompt: “{case.prompt}”. The target: {case.target}" for case in named)


def _summary(scale: Scale, layout: Layout) -> list[str]:
    """What was found over all circuits; nothing before they were measured."""
    # Here, since it loads PyTorch, and the rules of the workflow import this module.
    from transcoders.tables import summarise_circuits

    tables = {
        case.name: layout.circuit(case.name) / "controls.csv" for case in scale.circuits.cases
    }
    if not all(path.exists() for path in (*tables.values(), layout.replacement)):
        return []
    controls = {case: read_table(path) for case, path in tables.items()}
    return summarise_circuits(controls, read_table(layout.replacement))


def _more(page: str, scale: Scale, layout: Layout) -> list[tuple[Path, str]]:
    """What a reader can open beside the page itself."""
    from transcoders.case_studies.scripts import load_script  # here, for the same reason

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
    if page == "case_studies" and layout.table4.exists():
        studies = read_table(layout.table4)[["study", "outcome"]]
        return [
            (
                _page(layout, f"{STUDY}{study}"),
                f"{load_script(layout.study_scripts / f'{study}.yaml').title} ({outcome})",
            )
            for study, outcome in studies.itertuples(index=False)
        ]
    return []


def _findings(judged: pd.DataFrame) -> list[dict[str, Any]]:
    """Each claim or extension of a chapter with its verdicts, one for each site."""
    judged = judged[judged["kind"] != "check"]
    ids = judged["claim"].str.split(":").str[0]
    return [
        {
            "kind": rows.iloc[0]["kind"],
            "statement": rows.iloc[0]["statement"],
            "verdicts": _verdicts(rows),
            "notes": _notes(rows),
        }
        for _, rows in judged.groupby(ids, sort=False)
    ]


def _verdicts(rows: pd.DataFrame) -> list[tuple[str, str, str]]:
    """Site (empty if there is one verdict for all), verdict and value of a claim's rows."""
    return [
        (place, verdict_in_words(row), value_in_words(row))
        for place, row in zip(_places(rows), rows.to_dict("records"), strict=True)
    ]


def _notes(rows: pd.DataFrame) -> list[str]:
    """What there is to know about the verdicts of a claim; of a site's own, with its name."""
    notes: dict[str, list[str]] = {}
    for place, row in zip(_places(rows), rows.to_dict("records"), strict=True):
        for note in notes_in_words(row):
            notes.setdefault(note, []).append(place)
    return [
        note if len(sites) == len(rows) else f"{', '.join(sites)}: {note}"
        for note, sites in notes.items()
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
            page = _page(Layout(scale), page_of(first["evidence"]))
            verdict = together(set(rows["verdict"]))
            shown["found"].append(verdict)
            shown["scales"][scale] = {
                "verdict": f"{SIGNS[verdict]} {verdict}",
                "details": _verdicts(rows),
                "page": relative(page, folder) if page.exists() else None,
            }
    return list(claims.values())
