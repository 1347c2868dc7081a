"""The draft of a blind study: a file in which the analyst has only words left to write.

:func:`write_draft` fills in what a machine can: the feature, the hash of its weights, the questions
that studies begin with, and how the hypothesis will be scored. The analyst, the hypothesis, its
pattern and what is said afterwards are left empty, and a study without them is not valid, so no
draft gets into Table 4 by mistake. Nothing that a draft holds depends on the words of a text.
"""

from pathlib import Path

from transcoders.case_studies.answers import Answers
from transcoders.case_studies.scripts import MOSTLY, SUCCESS, weights_of
from transcoders.errors import UserError
from transcoders.layout import Layout
from transcoders.templates import render_text


def write_draft(path: Path, scale: str, feature: str, *, drawn: bool, restricted: bool) -> None:
    """Write the draft of a study.

    Args:
        path: a file that does not exist yet.
        scale: the name of a file in ``config/``, whose results are there.
        feature: a feature of a headline transcoder of the rated model, such as ``tc20[665]``.
        drawn: whether the feature was drawn at random.
        restricted: whether the study hides what prompts make of layer 0's features, too.

    Raises:
        UserError: something is missing, the feature cannot be studied, or the file exists.
    """
    if path.exists():
        raise UserError(f"{path}: this file exists already and stays; name another with --out")
    answers, layout = Answers(scale, feature, restricted=restricted, device="cpu"), Layout(scale)
    if not (examples := answers.examples()):
        raise UserError(
            f"{feature}: expected a feature that is active on the text, found none of its "
            "examples; study another feature"
        )
    text = render_text(
        __package__, "draft.yaml.j2", **answers.facts, scale=scale, drawn=drawn, best=examples[0],
        transcript=repr(str(path.with_suffix(".json"))), place=layout.study_scripts,
        weights=weights_of(answers.facts["dictionary"], layout), success=SUCCESS, mostly=MOSTLY,
    )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    # Without a record of its hash, since it is there to be edited.
    path.write_text(text, encoding="utf-8")
