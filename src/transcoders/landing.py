"""The article to begin with, which opens from a folder, without a network.

No result is written here: all come from tables.
"""

from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from transcoders import contents
from transcoders.claims import words
from transcoders.config import Scale
from transcoders.documents import has_page, page_beside
from transcoders.files import read_table
from transcoders.gaps.words import in_short
from transcoders.layout import ARTICLE, Layout
from transcoders.rating.records import NO_PERSON
from transcoders.templates import render, script, stylesheet
from transcoders.words import listed, listed_layers

Judged = dict[Hashable, Any]
"""A claim with its verdicts: its first row of ``claims.csv``, and what :func:`_judged` adds."""
REHEARSAL = "smoke"
"""A scale that tests the machinery. Its verdicts mean nothing, so other scales do not show them."""


def documents_of(layout: Layout) -> list[Path]:
    """The documents that have a page beside the article. Other scales' articles link to these."""
    if layout.landing_page != ARTICLE:
        return []
    named = map(Path, contents.STORY["documents"])
    return [path for path in named if has_page(path)]


def landing_page(scale: Scale, layout: Layout, destination: Path) -> str:
    """The article as text, without the figures, chapters and links that the scale does not have.

    Args:
        scale: the scale, which describes itself.
        layout: where tables, figures and pages are, relative to the current folder.
        destination: where the page will be. Its links start there.
    """
    claims = read_table(layout.claims)
    others = [Layout(name) for name in others_judged(scale.name)]
    judged = {each.scale: _judged(each) for each in (layout, *others)}
    chapters = [
        _chapter(each, scale, layout, judged[scale.name].values())
        for each in contents.STORY["chapters"]
    ]
    text = render(
        "transcoders",
        "landing.html.j2",
        style=Markup(stylesheet()),
        script=Markup(script()),
        to=lambda path: contents.relative(path, destination.parent),
        page=lambda name: _page(layout, name),
        title_of=contents.title_of,
        scale=scale,
        layout=layout,
        verdicts=words.count_verdicts(claims),
        short=_in_short(contents.STORY["short"], claims),
        trained=_tokens_trained(layout),
        elsewhere=[
            (other.landing_page, other.scale, _tokens_trained(other))
            for other in others
            if other.landing_page.exists()
        ],
        trained_once=not claims["resampled"].str.contains("training runs").any(),
        why=in_short(read_table(layout.why)) if layout.why.exists() else None,
        chapters=[chapter for chapter in chapters if chapter is not None],
        signs=words.SIGNS,
        scales=list(judged),
        claims=_overview(judged),
        pages={
            name: contents.PAGES[name]["about"]
            for name in contents.pages_of(scale)
            if _page(layout, name).exists()
        },
        documents=[
            (page_beside(Path(name)), name, about)
            for name, about in contents.STORY["documents"].items()
        ],
    )
    return text + "\n"


def _in_short(sentences: dict[str, dict[str, str]], claims: pd.DataFrame) -> list[str]:
    """What the verdicts come to, in sentences. What was not tested is left out."""
    found, ids = [], claims["claim"].str.partition(":")[0]
    for claim, said in sentences.items():
        rows = claims[(ids == claim) & claims["verdict"].isin(said)]
        if "opening" not in said:
            for verdict, evidence in zip(rows["verdict"], rows["evidence"], strict=True):
                but = f" ({NO_PERSON})." if NO_PERSON in evidence else "."
                found.append(said[verdict].removesuffix(".") + but)
        elif len(rows):
            sites = _places(rows)
            by_verdict = [(said[each], sites[rows["verdict"] == each]) for each in said]
            parts = [f"{part} {_listed(list(at))}" for part, at in by_verdict if len(at)]
            found.append(f"{said['opening']} {', and '.join(parts)}.")
    return found


def _places(rows: pd.DataFrame) -> pd.Series:
    """The sites of a claim's rows, as a reader names them; empty if a row is about all sites."""
    sites = rows["claim"].str.partition(":")[2].str.rpartition("_layer")
    one_model = sites[0].nunique() == 1
    return (
        ("" if one_model else sites[0] + ", ") + sites[1].where(sites[2] == "", "layer ") + sites[2]
    )


def _listed(places: list[str]) -> str:
    """Sites one after another, as :func:`_places` names them."""
    if all(place.startswith("layer ") for place in places):
        return listed_layers([place.split()[1] for place in places])
    return listed(places)


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
    chapter: dict[str, Any], scale: Scale, layout: Layout, judged: Iterable[Judged]
) -> dict[str, Any] | None:
    """What the template shows of a chapter; None if the scale has none of its pages."""
    pages = [name for name in chapter["pages"] if _page(layout, name).exists()]
    if not pages:
        return None
    own = [each for each in judged if each["page_name"] in pages]
    tables = dict.fromkeys(name for each in own for name in each["tables"])
    rule = "gap_by_tokens" if pages[0] == "why" else chapter["rule"]
    chosen = "" if scale.name == "laptop" else f" --config scale={scale.name}"
    return {
        **chapter,
        "id": chapter["pages"][-1],
        "findings": [each for each in own if each["kind"] != "check"],
        "summary": _summary(scale, layout) if pages[-1] == "circuits" else [],
        "pictures": [
            (
                layout.figure(name),
                layout.figure(contents.whole_of(name)),
                f"{contents.caption_of(name)}{_asked(name, scale)}",
            )
            for name in chapter["figures"]
            if layout.figure(f"{name}.png").exists()
        ],
        "pages": pages,
        "more": [
            (page_beside(path), name)
            for path, name in _more(chapter["pages"][-1], scale, layout)
            if path.exists()
        ],
        "tables": [path for name in tables for path in sorted(layout.results.glob(name))],
        "command": f"snakemake --cores all {rule}{chosen}",
    }


def _asked(figure: str, scale: Scale) -> str:
    """What a picture of a circuit is an answer to."""
    named = [
        case for case in scale.circuits.cases if contents.whole_of(figure) == f"circuit_{case.name}"
    ]
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
                _page(layout, f"{contents.STUDY}{study}"),
                f"{load_script(layout.study_scripts / f'{study}.yaml').title} ({outcome})",
            )
            for study, outcome in studies.itertuples(index=False)
        ]
    return []


def _judged(layout: Layout) -> dict[str, Judged]:
    """Each claim, check and extension of a scale, by its name, with what was found at its sites."""
    claims, found = read_table(layout.claims), {}
    for claim, rows in claims.groupby(claims["claim"].str.partition(":")[0], sort=False):
        records, places = rows.to_dict("records"), _places(rows)
        notes: dict[str, list[str]] = {}
        for place, row in zip(places, records, strict=True):
            for note in words.notes_in_words(row):
                notes.setdefault(note, []).append(place)
        name = contents.page_of(records[0]["evidence"])
        found[str(claim)] = {
            **records[0],
            "page_name": name,
            "page": _page(layout, name) if _page(layout, name).exists() else None,
            "tables": [
                table for evidence in rows["evidence"] for table in contents.tables_of(evidence)
            ],
            "verdict": words.together(set(rows["verdict"])),
            # Of each site; the name of a site is empty if there is one verdict for all.
            "verdicts": [
                (place, words.verdict_in_words(row), words.value_in_words(row))
                for place, row in zip(places, records, strict=True)
            ],
            # Notes about all sites come first. The others begin with the sites that they are about.
            "notes": [
                note if len(sites) == len(rows) else f"{_listed(sites)}: {note}"
                for note, sites in sorted(notes.items(), key=lambda each: len(each[1]) < len(rows))
            ],
        }
    return found


def _overview(judged: dict[str, dict[str, Judged]]) -> list[dict[str, Judged]]:
    """For each of the paper's claims, what every scale that has it says of it."""
    claims: dict[str, dict[str, Judged]] = {}
    for scale, found in judged.items():
        for claim, each in found.items():
            if each["kind"] == "claim":
                claims.setdefault(claim, {})[scale] = each
    return list(claims.values())
