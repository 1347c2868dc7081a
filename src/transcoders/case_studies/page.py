"""A case study as a notebook: a thought, a question, its answer, and so on to the text."""

import json
from pathlib import Path
from typing import Any

from transcoders.case_studies.questions import RefusedError
from transcoders.case_studies.scripts import MOSTLY, SUCCESS, RecordedStudy, Step, StudyScript
from transcoders.files import read_table
from transcoders.tables.html import in_markdown

SHOWN = {
    "examples": "{call}.head(12)",
    "circuit": "print({call}.table(12))",
}
"""How an answer is shown; others show themselves."""
VERDICTS = {
    "success": "The hypothesis was right.",
    "mostly": "The hypothesis was mostly right.",
    "failure": "The hypothesis was wrong, or said too little.",
    "other weights": (
        "The dictionaries here are not those that the analyst studied, so the words on this page "
        "are about other features than its numbers."
    ),
}


def study_notebook(name: str, script: StudyScript, folder: Path, table4: Path) -> Any:
    """A notebook that reads a carried-out study again, not yet executed.

    Args:
        name: of the study, as in Table 4.
        script: what the analyst wrote.
        folder: where the study was carried out.
        table4: the table with its score.
    """
    from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

    row = read_table(table4).set_index("study").loc[name]
    variant = "restricted " if script.restricted else ""
    cells = [
        new_markdown_cell(
            f"# {script.title}\n\n"
            f"**Question.** What is feature `{script.feature}` about? A {variant}blind case study: "
            "until a hypothesis is written down, the analyst sees rows, positions, activations, "
            "circuits and weights, and no token of the text (the paper's section 4.3).\n\n"
            "**Method.** Attribution through features splits into an activation times a product of "
            "weights, $z_i\\,(\\mathbf{f}_{\\mathrm{dec},i} \\cdot \\mathbf{f}_{\\mathrm{enc}})$, "
            "so a circuit says which earlier features matter, and the weights what those read: "
            "$\\mathbf{e}_t \\cdot \\mathbf{f}_{\\mathrm{enc}}$ for each token $t$ of the "
            "vocabulary (de-embedding). The hypothesis is then scored as a rule: the share of "
            "active places that match it against the share of silent ones."
        ),
        new_markdown_cell(
            "Answers come from the sealed record of the study; what was not asked is not there. "
            "With weights at hand, `BlindStudy.open` of `transcoders.case_studies.harness` "
            "answers anything that the rule allows."
        ),
        new_code_cell(
            "from pathlib import Path\n\nimport pandas as pd\nfrom IPython.display import HTML\n\n"
            "from transcoders.case_studies.scripts import RecordedStudy\n"
            "from transcoders.tables.html import html_table\n\n"
            'pd.set_option("display.max_colwidth", None)\n'
            f'study = RecordedStudy(Path("{folder.as_posix()}"))\n'
            "study.facts"
        ),
    ]
    study = RecordedStudy(folder)
    for step in script.steps:
        cells.append(new_markdown_cell(step.thought))
        try:
            study.ask(step.question, **step.arguments)
        except RefusedError as refusal:
            cells.append(
                new_markdown_cell(f"`{_call(step)}`: refused. {in_markdown(str(refusal))}")
            )
        else:
            call = SHOWN.get(step.question, "{call}").format(call=_call(step))
            cells.append(new_code_cell(call))
    cells += [
        new_markdown_cell(
            f"## The hypothesis\n\n{script.hypothesis}\n\n"
            f"As a pattern, with the peak in ⟦ ⟧: `{script.pattern}`"
        ),
        new_markdown_cell("## What is written there"),
        new_code_cell(
            "revealed = study.reveal(study.hypothesis)\n"
            'shown = revealed.examples[["kind", "activation", "text"]]\n'
            'HTML(html_table(shown, {"activation": "{:.2f}"}, name="revealed"))'
        ),
        new_markdown_cell(
            f"**{VERDICTS[str(row['outcome'])]}** Its pattern matches {row['top_matched']:.0%} of "
            f"the strongest examples, {row['sampled_matched']:.0%} of those drawn at random from "
            f"all places where the feature is active, and {row['silent_matched']:.1%} of places "
            f"where it is silent: balanced accuracy {row['balanced_accuracy']:.2f}, where guessing "
            f"has 0.5, {SUCCESS} counts as right and {MOSTLY} as mostly right."
        ),
        new_markdown_cell(script.afterwards),
        new_markdown_cell(
            "## How this differs from the paper\n\nAnother model, text and dictionaries, with a "
            "transcoder on few layers, so that much of a circuit ends in MLPs that no path goes "
            "through. The paper's analysts chose features and judged by eye; here they were drawn "
            "at random, and a rule fixed beforehand judges.\n\n"
            "## Make it again\n\n"
            "The page, from the record: `make notebooks`. The record: `snakemake --cores all "
            f"table4`. The study itself is `workflow/case_studies/{folder.parts[1]}/{name}.yaml`."
        ),
    ]
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"  # not drawn at random: the same bytes every time
    return new_notebook(cells=cells)


def _call(step: Step) -> str:
    arguments = ", ".join(f"{name}={_literal(value)}" for name, value in step.arguments.items())
    return f"study.{step.question}({arguments})"


def _literal(value: Any) -> str:
    """A value in Python, with double quotes, as the project's notebooks are written."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
