"""Case studies: blind studies written down so that they can be done again and read.

A file in ``workflow/case_studies/<scale>/`` holds what the analyst thought and asked, step by step,
the hypothesis, and the same as a pattern that can be looked for in text. :func:`carry_out` asks all
of it again of a new server, which writes a sealed transcript; the answers are kept beside it, and
:class:`RecordedStudy` gives them out to whoever asks the same, so that a study can be read on a
machine without the model. An answer whose digest is not in the sealed transcript is refused.

The hypothesis is scored as a rule (:func:`score`): the share of places where the feature is active
that match the pattern, against the share of places where it is silent. The feature's number means
something only with the weights that the analyst had, so a file names their hash.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
from pydantic import AfterValidator, Field, ValidationError

from transcoders.case_studies.harness import BlindStudy
from transcoders.case_studies.questions import Questions, RefusedError
from transcoders.case_studies.study_server import FEATURE, StudyFiles
from transcoders.case_studies.transcript import OPENED, REVEALED, digest, verify_transcript
from transcoders.checksums import sha256
from transcoders.config.fields import Section
from transcoders.errors import UserError
from transcoders.files import made_folder, read_json, read_yaml, write_json

TRANSCRIPT, ANSWERS = "transcript.json", "answers.json"
SUCCESS, MOSTLY = 0.8, 0.65
"""Balanced accuracy from which on a hypothesis counts as right, or mostly right: fixed before the
first study. Guessing has 0.5."""
Outcome = Literal["success", "mostly", "failure", "other weights"]
TABLE4_COLUMNS = [
    "study", "feature", "restricted", "questions", "hypothesis", "pattern", "top_matched",
    "sampled_matched", "silent_matched", "balanced_accuracy", "outcome", "seal",
]  # fmt: skip


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"expected a regular expression, {error}") from None
    return pattern


class Step(Section):
    """Something that the analyst thought, and a question."""

    thought: str
    ask: Annotated[dict[str, dict[str, Any]], Field(min_length=1, max_length=1)]
    """The question's name, and its arguments."""

    @property
    def question(self) -> str:
        """Its name."""
        return next(iter(self.ask))

    @property
    def arguments(self) -> dict[str, Any]:
        """Of the question."""
        return self.ask[self.question]


class StudyScript(Section):
    """A file of a study."""

    title: str
    feature: Annotated[str, Field(pattern=FEATURE)]
    weights_sha256: str
    """Of the transcoder's file of weights that the analyst studied."""
    restricted: bool = False
    steps: Annotated[tuple[Step, ...], Field(min_length=1, strict=False)]
    hypothesis: str
    pattern: Annotated[str, AfterValidator(_compiles)]
    """The hypothesis as a regular expression, searched for in ``before⟦peak⟧after``."""
    afterwards: str
    """What the analyst says once the text is revealed."""

    @property
    def layer_and_unit(self) -> tuple[int, int]:
        """Of the feature."""
        found = FEATURE.fullmatch(self.feature)
        assert found is not None  # the field's pattern is this
        return int(found[1]), int(found[2])


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
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()
        )
        raise UserError(f"{path}: the case study is not valid: {problems}") from None


def carry_out(script: StudyScript, files: StudyFiles, folder: Path) -> "RecordedStudy":
    """Ask everything again, reveal, and keep transcript and answers in a folder."""
    with made_folder(folder) as temporary:
        with BlindStudy(
            files,
            feature=script.feature,
            restricted=script.restricted,
            transcript=temporary / TRANSCRIPT,
        ) as study:
            answers: list[Any] = [study.facts]
            for step in script.steps:
                try:
                    answers.append(study.ask(step.question, **step.arguments))
                except RefusedError:  # on record; with other weights, a feature may be silent there
                    answers.append(None)
            answers.append(study.ask(REVEALED, hypothesis=script.hypothesis)["examples"])
        write_json(temporary / ANSWERS, answers)
    return RecordedStudy(folder)


class RecordedStudy(Questions):
    """A study that is over: it answers what was asked in it.

    Attributes:
        seal: the last digest of its transcript.
        hypothesis: as it was sealed.
    """

    __slots__ = ("_answers", "_entries", "hypothesis", "seal")

    def __init__(self, folder: Path) -> None:
        """Read what :func:`carry_out` wrote.

        Raises:
            UserError: the transcript is not whole, or an answer is not the one that it records.
        """
        self._entries, self.hypothesis, self.seal = verify_transcript(folder / TRANSCRIPT)
        self._answers = read_json(folder / ANSWERS)
        recorded = [entry["answer"] for entry in self._entries]
        found = [None if answer is None else digest(answer) for answer in self._answers]
        if found != recorded:
            raise UserError(
                f"{folder / ANSWERS}: expected the {len(recorded)} answers whose digests are in "
                f"{TRANSCRIPT}, found others; restore both files, or carry the study out again"
            )

    @property
    def facts(self) -> dict[str, Any]:
        """What the server told when it began."""
        return dict(self._answers[0])

    def ask(self, question: str, /, **arguments: Any) -> Any:
        """The answer of then.

        Raises:
            RefusedError: it was refused then, or not asked.
        """
        for entry, answer in zip(self._entries, self._answers, strict=True):
            asked = (entry["question"], entry["arguments"])
            if asked == (question, arguments) and question != OPENED:
                if entry["refused"] is not None:
                    raise RefusedError(entry["refused"])
                sealed = question == REVEALED
                return {"examples": answer, "seal": self.seal} if sealed else answer
        raise RefusedError(f"{question}: it was not asked with these arguments in this study")


def score(
    name: str,
    script: StudyScript,
    study: RecordedStudy,
    silent: Sequence[str],
    *,
    weights: Path,
) -> dict[str, Any]:
    """A row of Table 4: the hypothesis as a rule that tells where the feature is active.

    Args:
        name: of the study.
        script: what was thought.
        study: what was answered.
        silent: texts around places where the feature is silent, marked like the revealed ones.
        weights: the transcoder's file, which may be another than the analyst's.

    Returns:
        :data:`TABLE4_COLUMNS`. Balanced accuracy is the mean of the share of sampled active places
        that match and the share of silent places that do not.
    """
    matched = re.compile(script.pattern).search
    examples = study.reveal(script.hypothesis).examples
    matches = examples["text"].map(matched).notna()
    is_top = examples["kind"] == "top"
    silent_matched = pd.Series(silent, dtype=object).map(matched).notna().mean()
    accuracy = (matches[~is_top].mean() + 1 - silent_matched) / 2
    return {
        "study": name,
        "feature": script.feature,
        "restricted": script.restricted,
        "questions": len(script.steps),
        "hypothesis": " ".join(script.hypothesis.split()),
        "pattern": script.pattern,
        "top_matched": matches[is_top].mean(),
        "sampled_matched": matches[~is_top].mean(),
        "silent_matched": silent_matched,
        "balanced_accuracy": accuracy,
        "outcome": outcome(accuracy, same=sha256(weights) == script.weights_sha256),
        "seal": study.seal,
    }


def outcome(accuracy: float, *, same: bool) -> Outcome:
    """The verdict on a hypothesis; none if it was about other weights."""
    if not same:
        return "other weights"
    if accuracy >= SUCCESS:
        return "success"
    return "mostly" if accuracy >= MOSTLY else "failure"
