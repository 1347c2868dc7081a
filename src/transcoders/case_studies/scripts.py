"""Case studies: blind studies written down so that others can repeat and read them.

A file in ``workflow/case_studies/<scale>/`` holds what the analyst thought and asked, step by step,
the hypothesis, and the hypothesis as a pattern that can be searched for in text.
:func:`write_draft` begins such a file. :func:`carry_out` asks all of it again and keeps the sealed
transcript and the answers. :class:`RecordedStudy` gives these answers to the same questions, so
that a study can be read on a machine without the model. It refuses an answer whose digest is not in
the transcript.

The hypothesis is scored as a rule (:func:`score`): which share of the places where the feature is
active matches the pattern, and which share of the places where it is silent? A feature's number
means something only with the weights that the analyst had, so a file names their hash.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from pydantic import Field, ValidationError

from transcoders.case_studies.answers import FEATURE, Answers
from transcoders.case_studies.harness import BlindStudy, Questions, RefusedError, problems
from transcoders.case_studies.transcript import REVEALED, digest, verify_transcript
from transcoders.checksums import sha256
from transcoders.config.fields import Section
from transcoders.errors import UserError
from transcoders.files import made_folder, read_json, read_yaml, write_json, write_table
from transcoders.layout import Layout
from transcoders.progress import progress_bar
from transcoders.templates import render_text

TRANSCRIPT, ANSWERS = "transcript.json", "answers.json"
SUCCESS, MOSTLY = 0.8, 0.65
"""Balanced accuracies that a right and a mostly right hypothesis must reach. They were fixed before
the first study. Guessing gives 0.5."""
TABLE4_COLUMNS = [
    "study", "feature", "drawn", "restricted", "questions", "hypothesis", "pattern", "top_matched",
    "sampled_matched", "silent_matched", "balanced_accuracy", "outcome", "seal",
]  # fmt: skip


class Step(Section):
    """A thought of the analyst, and the question that follows from it."""

    thought: str
    ask: Annotated[dict[str, dict[str, Any]], Field(min_length=1, max_length=1)]
    """The question's name, and its arguments."""

    @property
    def question(self) -> tuple[str, dict[str, Any]]:
        """The question's name, and its arguments."""
        return next(iter(self.ask.items()))


class StudyScript(Section):
    """The file in which a study is written down."""

    title: str
    analyst: str
    """Who studied the feature, and what they knew of it and of the text before, in a sentence."""
    feature: Annotated[str, Field(pattern=FEATURE)]
    drawn: bool
    """Whether the feature was drawn at random. If not, it was picked for its looks, and its study
    says nothing of features at large."""
    weights_sha256: str
    """SHA-256 of the transcoder's weights that the analyst studied."""
    restricted: bool = False
    steps: Annotated[tuple[Step, ...], Field(min_length=1, strict=False)]
    hypothesis: str
    pattern: re.Pattern[str]
    """The hypothesis as a regular expression, searched for in ``before⟦peak⟧after``."""
    afterwards: str
    """What the analyst says once the text is revealed."""


def write_draft(path: Path, scale: str, feature: str, *, drawn: bool, restricted: bool) -> None:
    """Write the draft of a study: a file in which the analyst has only words left to write.

    A machine can fill in the feature, the hash of its weights, the questions that studies begin
    with, and how the hypothesis will be scored. The analyst, the hypothesis, its pattern and what
    is said afterwards are left empty. A study without them is not valid, so no draft gets into
    Table 4 by mistake. Nothing that a draft holds depends on the words of a text.

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


def load_script(path: Path) -> StudyScript:
    """Read a study.

    Raises:
        UserError: it is missing or not valid; the message names the keys.
    """
    try:
        return StudyScript.model_validate(read_yaml(path))
    except FileNotFoundError:
        known = ", ".join(sorted(other.stem for other in path.parent.glob("*.yaml")))
        raise UserError(f"{path}: no such case study; there are {known or 'none'}") from None
    except ValidationError as error:
        raise UserError(f"{path}: the case study is not valid: {problems(error)}") from None


class RecordedStudy(Questions):
    """A study that is over: it answers what was asked in it.

    Attributes:
        hypothesis: as it was sealed.
    """

    def __init__(self, folder: Path) -> None:
        """Read what :func:`carry_out` wrote.

        Raises:
            UserError: the transcript is not whole, or an answer is not the one that it records.
        """
        self._entries = verify_transcript(folder / TRANSCRIPT)
        self.hypothesis = self._entries[-1]["arguments"]["hypothesis"]
        self._answers = read_json(folder / ANSWERS)
        recorded = [entry["answer"] for entry in self._entries]
        found = [None if answer is None else digest(answer) for answer in self._answers]
        if found != recorded:
            raise UserError(
                f"{folder / ANSWERS}: expected the {len(recorded)} answers whose digests are in "
                f"{TRANSCRIPT}, found others; restore both files, or carry the study out again"
            )
        self.facts = self._answers[0]

    def ask(self, question: str, /, **arguments: Any) -> Any:
        """Give the answer that was given then.

        Raises:
            RefusedError: the question was refused then, or nobody asked it.
        """
        for entry, answer in zip(self._entries, self._answers, strict=True):
            if (entry["question"], entry["arguments"]) == (question, arguments):
                if entry["refused"] is not None:
                    raise RefusedError(entry["refused"])
                return answer
        raise RefusedError(f"{question}: it was not asked with these arguments in this study")


def write_table4(scale: str, layout: Layout, *, device: str) -> None:
    """Carry out all studies of a scale, and write their scores: :data:`TABLE4_COLUMNS`."""
    paths, rows = sorted(layout.study_scripts.glob("*.yaml")), []
    with progress_bar(len(paths), "asking again", "studies") as bar:
        for path in paths:
            script, folder = load_script(path), layout.carried_out(path.stem)
            rows.append(carry_out(path.stem, script, scale, folder, device))
            bar.update(1)
    write_table(layout.table4, pd.DataFrame(rows, columns=TABLE4_COLUMNS))


def carry_out(
    name: str, script: StudyScript, scale: str, folder: Path, device: str
) -> dict[str, Any]:
    """Ask everything again, keep transcript and answers in a folder, and score the hypothesis.

    Args:
        name: the name of the study.
        script: what the analyst wrote.
        scale: the name of a file in ``config/``, whose results are there.
        folder: where transcript and answers go.
        device: ``cpu`` or ``cuda``.

    Returns:
        A row of :data:`TABLE4_COLUMNS`.
    """
    with made_folder(folder) as temporary:
        study = BlindStudy(
            scale, feature=script.feature, restricted=script.restricted,
            transcript=temporary / TRANSCRIPT, device=device,
        )  # fmt: skip
        answers: list[Any] = [study.facts]
        for step in script.steps:
            question, arguments = step.question
            try:
                answers.append(study.ask(question, **arguments))
            except RefusedError:  # on record; with other weights, a feature may be silent there
                answers.append(None)
        answers.append(study.ask(REVEALED, hypothesis=script.hypothesis))
        write_json(temporary / ANSWERS, answers)
    weights = weights_of(study.facts["dictionary"], Layout(scale))
    return score(name, script, RecordedStudy(folder), study.silent_texts(), weights)


def weights_of(dictionary: str, layout: Layout) -> str:
    """SHA-256 of a dictionary's weights."""
    return sha256(layout.dictionary(dictionary) / "sae_weights.safetensors")


def score(
    name: str, script: StudyScript, study: RecordedStudy, silent: Sequence[str], weights: str
) -> dict[str, Any]:
    """Score the hypothesis as a rule that tells where the feature is active.

    Args:
        name: the name of the study.
        script: what the analyst wrote.
        study: what was answered.
        silent: texts around places where the feature is silent, marked like the revealed ones.
        weights: SHA-256 of the transcoder's weights, which may differ from the analyst's.

    Returns:
        A row of :data:`TABLE4_COLUMNS`. Balanced accuracy is the mean of two shares: of sampled
        active places that match, and of silent places that do not.
    """

    def share_matched(texts: pd.Series) -> float:
        return texts.map(script.pattern.search).notna().mean()

    examples = study.reveal(script.hypothesis).examples
    top, sampled = (
        share_matched(examples.loc[examples["kind"] == kind, "text"]) for kind in ("top", "sampled")
    )
    silent_matched = share_matched(pd.Series(silent, dtype=object))
    accuracy = (sampled + 1 - silent_matched) / 2
    outcome = "success" if accuracy >= SUCCESS else "mostly" if accuracy >= MOSTLY else "failure"
    values = (
        name, script.feature, script.drawn, script.restricted, len(script.steps),
        " ".join(script.hypothesis.split()), script.pattern.pattern, top, sampled, silent_matched,
        accuracy, outcome if weights == script.weights_sha256 else "other weights", study.seal,
    )  # fmt: skip
    return dict(zip(TABLE4_COLUMNS, values, strict=True))
