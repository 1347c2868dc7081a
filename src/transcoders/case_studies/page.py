"""A case study as a notebook: who asked what and why, what was seen, the guess, and the text."""

import json
import re
from pathlib import Path
from typing import Any

from transcoders.case_studies.harness import RefusedError
from transcoders.case_studies.scripts import (
    MOSTLY,
    SUCCESS,
    RecordedStudy,
    Step,
    StudyScript,
    load_script,
)
from transcoders.case_studies.seen import heading
from transcoders.config import Scale
from transcoders.contents import STUDY, place_of, relative
from transcoders.files import read_table
from transcoders.layout import Layout
from transcoders.notebooks import execute_notebook
from transcoders.tables.html import in_markdown
from transcoders.templates import render_text


def write_study_page(name: str, scale: Scale, layout: Layout) -> None:
    """Render a study of a scale, as it was carried out, as a notebook and a page.

    Raises:
        UserError: there is no such study, or a file is missing or damaged.
    """
    source, folder = layout.study_scripts / f"{name}.yaml", layout.carried_out(name)
    script, page = load_script(source), f"{STUDY}{name}"
    browser = _in_browser(script.feature, scale, layout, layout.notebook(page).parent)
    notebook = study_notebook(source, script, folder, layout.table4, browser=browser)
    place = place_of(page, scale, layout)
    execute_notebook(notebook, str(source), layout.notebook(page), place)


def _in_browser(feature: str, scale: Scale, layout: Layout, folder: Path) -> str | None:
    """The address of a feature in the feature browser, if its dictionary is there as a whole."""
    layer, unit = map(int, re.findall(r"\d+", feature))
    rated = scale.rated("transcoder")
    if layer != rated.site.layer:
        return None
    return f"{relative(layout.features_of(rated.name), folder)}#{unit}"


def study_notebook(
    source: Path, script: StudyScript, folder: Path, table4: Path, *, browser: str | None = None
) -> Any:
    """A notebook that reads a carried-out study again, not yet executed.

    Args:
        source: the study's file, which has the study's name.
        script: what is in it.
        folder: where the study was carried out.
        table4: the table with its score.
        browser: the address of the feature in the feature browser, if it is there.
    """
    from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

    new_cell = {"code": new_code_cell, "markdown": new_markdown_cell}
    row, study = read_table(table4).set_index("study").loc[source.stem], RecordedStudy(folder)
    text = render_text(
        __package__, "page.md.j2",
        source=source, script=script, folder=folder, row=row, facts=study.facts, browser=browser,
        steps=[_shown(step, study) for step in script.steps], success=SUCCESS, mostly=MOSTLY,
        in_markdown=in_markdown,
    )  # fmt: skip
    _, *parts = re.split(r"^%% (code|markdown)\n", text, flags=re.MULTILINE)
    cells = [
        # The number is not drawn at random, so that the bytes are the same every time. Pages have
        # no cell 1: the addresses of the others are older than the place of the method.
        new_cell[kind](content.strip("\n"), id=f"cell-{number + (number > 0)}")
        for number, (kind, content) in enumerate(zip(parts[::2], parts[1::2], strict=True))
    ]
    return new_notebook(cells=cells)


def _shown(step: Step, study: RecordedStudy) -> dict[str, str | None]:
    """A question in words and in Python, its thought, and why it was refused, if it was."""
    question, arguments = step.question
    written = ", ".join(f"{name}={in_python(value)}" for name, value in arguments.items())
    refusal = None
    try:
        study.ask(question, **arguments)
    except RefusedError as refused:
        refusal = str(refused)
    return {
        "heading": heading(question, arguments),
        "thought": step.thought,
        "call": f"study.{question}({written})",
        "refusal": refusal,
    }


def in_python(value: Any) -> str:
    """A value in Python. JSON has double quotes, as in the project's notebooks."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
