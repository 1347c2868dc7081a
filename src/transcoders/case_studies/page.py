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
    source, page = layout.study_scripts / f"{name}.yaml", f"{STUDY}{name}"
    script, destination = load_script(source), layout.notebook(page)
    layer, unit = re.findall(r"\d+", script.feature)
    rated = scale.rated("transcoder")
    browser = None
    if int(layer) == rated.site.layer:
        browser = f"{relative(layout.features_of(rated.name), destination.parent)}#{unit}"
    notebook = study_notebook(
        source, script, layout.carried_out(name), layout.table4, browser=browser
    )
    execute_notebook(notebook, str(source), destination, place_of(page, scale, layout))


def study_notebook(
    source: Path, script: StudyScript, folder: Path, table4: Path, *, browser: str | None = None
) -> Any:
    """A notebook that reads a carried-out study again, not yet executed.

    Args:
        source: the study's file, which has the study's name.
        script: what is in it.
        folder: where the study was carried out.
        table4: the table with its score.
        browser: the address of the feature in the feature browser, if its dictionary is there.
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
    # Cells are numbered, not named at random, so that the bytes are the same every time.
    return new_notebook(
        cells=[
            new_cell[kind](content.strip("\n"), id=f"cell-{number}")
            for number, (kind, content) in enumerate(zip(parts[::2], parts[1::2], strict=True))
        ]
    )


def _shown(step: Step, study: RecordedStudy) -> dict[str, str]:
    """A question in words and in Python, its thought, and why it was refused, if it was."""
    question, arguments = step.question
    # JSON has double quotes, as in the project's notebooks.
    written = {
        name: json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
        for name, value in arguments.items()
    }
    call = ", ".join(f"{name}={value}" for name, value in written.items())
    refusal = ""
    try:
        study.ask(question, **arguments)
    except RefusedError as refused:
        refusal = str(refused)
    return {
        "heading": heading(question, arguments),
        "thought": step.thought,
        "call": f"study.{question}({call})",
        "refusal": refusal,
    }
