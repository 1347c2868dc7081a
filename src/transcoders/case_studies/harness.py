"""Blind studies: explain a feature from circuits, without seeing a token of a prompt (section 4.3).

    study = BlindStudy("laptop", feature="tc20[665]", transcript=Path("tc20-665.json"))
    study.examples()                                   # rows, positions, activations
    study.circuit(row=17, position=40).table()         # Algorithm 1
    study.de_embedding("tc20[665] <- attn19[2]")       # weights alone
    study.reveal("Fires on ...").examples              # only now: what is written there

A study writes every question to its transcript before the answer is given
(:mod:`~transcoders.case_studies.transcript`). Numbers in answers have six digits.

**Answered**, by the paper's rule: rows, positions, activations, and circuits whose nodes are
numbers. Also answered is what weights alone say: de-embeddings, direct logits, connections and
pull-backs. A pull-back is a name for a vector: ``tc8[355] <- attn5[6] <- tc0[12]`` is what feature
12 of layer 0 reads to move, through head 6 of layer 5, feature 355 of layer 8. It says nothing
about a prompt, since attention only scales such vectors. **Refused**: texts, token ids, logits, and
every vector that depends on a prompt.

**Restricted**, the stricter variant, also refuses what a prompt makes of layer 0's features: their
activations, and circuits that explain them. In other circuits all of layer 0's features at a token
are one node, ``mlp0@t``. They are added up before the search for paths, so no search can tell them
apart.

**What this cannot prevent**: the text is in files on the analyst's machine, and in the memory of
this process. Also, the allowed numbers depend on the tokens, so an analyst who searches the
vocabulary for tokens that fit the numbers breaks the rule. The transcript shows what was asked. It
does not show what was done with the answers.
"""

import json
import operator
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from pydantic import ValidationError, validate_call

from transcoders.case_studies.answers import EXAMPLE_COLUMNS, QUESTIONS, Answers
from transcoders.case_studies.transcript import OPENED, REVEALED, Entry, add_entry, is_sealed
from transcoders.circuits.export import paths_of_record
from transcoders.circuits.paths import ComputationalPath, strongest
from transcoders.errors import UserError

DIGITS = 6
"""Significant digits of numbers in answers, as in the tables."""


class RefusedError(UserError):
    """A question that a blind study does not answer, or not in this form."""


class BlindCircuit(NamedTuple):
    """Why a feature is active at a place, in numbers."""

    paths: list[ComputationalPath]

    def table(self, n: int = 15) -> str:
        """The strongest paths, one on each line: attribution, and nodes from the target back."""
        return "\n".join(f"{path.attribution:+9.3f}  {path}" for path in strongest(self.paths, n))


class Revealed(NamedTuple):
    """What is written where a feature is active."""

    examples: pd.DataFrame
    """:data:`EXAMPLE_COLUMNS`, and ``text`` with the peak in ⟦ ⟧."""
    seal: str
    """The digest of the whole transcript. Note it elsewhere."""


class Questions(ABC):
    """What an analyst can ask, of a study or of its record.

    Every method may raise :class:`RefusedError`. The methods of the same names in
    :class:`~transcoders.case_studies.answers.Answers` describe the arguments.

    Attributes:
        facts: sizes of text and model; how often and how strongly the feature is active.
    """

    facts: dict[str, Any]
    _entries: list[Entry]

    @property
    def seal(self) -> str:
        """The last digest of the transcript."""
        return str(self._entries[-1]["digest"])

    @abstractmethod
    def ask(self, question: str, /, **arguments: Any) -> Any:
        """Ask any question by its name, and get the answer as JSON."""

    def examples(self) -> pd.DataFrame:
        """Where the feature is most active, and a random sample: :data:`EXAMPLE_COLUMNS`."""
        return pd.DataFrame(self.ask("examples"), columns=EXAMPLE_COLUMNS)

    def activations(self, row: int, **arguments: Any) -> "pd.Series[float]":
        """The activations of a feature on a row, by position."""
        found = dict(self.ask("activations", row=row, **arguments))
        return pd.Series(found, name="activation", dtype=float)

    def circuit(self, row: int, position: int, **arguments: Any) -> BlindCircuit:
        """The circuit of a feature at a place, by Algorithm 1."""
        found = self.ask("circuit", row=row, position=position, **arguments)
        return BlindCircuit(paths_of_record(found))

    def pull_back(self, vector: str, through: str) -> str:
        """The name of what a head or an earlier feature reads to move a feature vector."""
        return str(self.ask("pull_back", vector=vector, through=through))

    def de_embedding(self, vector: str, **arguments: Any) -> pd.DataFrame:
        """The tokens that drive a vector most: rows ``token, value``."""
        found = self.ask("de_embedding", vector=vector, **arguments)
        return pd.DataFrame(found, columns=["token", "value"])

    def direct_logits(self, feature: str, **arguments: Any) -> pd.DataFrame:
        """The tokens whose logits a feature moves most: rows ``token, value``."""
        found = self.ask("direct_logits", feature=feature, **arguments)
        return pd.DataFrame(found, columns=["token", "value"])

    def connections(self, vector: str, layer: int, **arguments: Any) -> pd.DataFrame:
        """The features of a layer that move a vector most: rows ``feature, value``."""
        found = self.ask("connections", vector=vector, layer=layer, **arguments)
        return pd.DataFrame(found, columns=["feature", "value"])

    def reveal(self, hypothesis: str) -> Revealed:
        """Write down a hypothesis, which ends the blind study, and see the text."""
        found = self.ask(REVEALED, hypothesis=hypothesis)
        return Revealed(pd.DataFrame(found, columns=[*EXAMPLE_COLUMNS, "text"]), self.seal)


class BlindStudy(Questions):
    """A study of one feature. Nothing of it is shown but the answers to questions."""

    def __init__(
        self,
        scale: str,
        *,
        feature: str,
        restricted: bool = False,
        transcript: Path,
        device: str = "cpu",
    ) -> None:
        """Load model and text, and begin the transcript.

        Args:
            scale: the name of a file in ``config/``, whose results are there.
            feature: a feature of a headline transcoder of the rated model, such as ``tc20[665]``.
            restricted: whether to hide what prompts make of layer 0's features, too.
            transcript: a file that does not exist yet.
            device: ``cpu`` or ``cuda``.

        Raises:
            UserError: something is missing, the feature cannot be studied, or the transcript
                exists.
        """
        if transcript.exists():
            raise UserError(
                f"{transcript}: this transcript exists already and stays; name another file"
            )
        self._transcript, self._entries = transcript, []
        self._answers = Answers(scale, feature, restricted=restricted, device=device)
        self.facts = _as_json(self._answers.facts)
        add_entry(transcript, self._entries, OPENED, self._answers.opening, answer=self.facts)

    def ask(self, question: str, /, **arguments: Any) -> Any:
        """Answer a question, once it is on record.

        Raises:
            RefusedError: the question is not answered.
            OSError: it cannot be recorded, so it is not answered.
        """
        if is_sealed(self._entries):
            raise RefusedError("the study is sealed: nothing more is answered or recorded")
        arguments, answer, refused = _as_json(arguments), None, None
        try:
            if question not in QUESTIONS:
                known = ", ".join(QUESTIONS)
                raise UserError(f"a blind study does not answer this; it answers {known}")
            checked = validate_call(config={"strict": True})(getattr(self._answers, question))
            answer = _as_json(checked(**arguments))
        except ValidationError as error:
            refused = f"{question}: {problems(error)}"
        except UserError as error:
            refused = f"{question}: {error}"
        except Exception as error:  # its message might hold tokens
            refused = f"{question}: failed with {type(error).__name__}"
        add_entry(
            self._transcript, self._entries, question, arguments, answer=answer, refused=refused
        )
        if refused is not None:
            raise RefusedError(refused)
        return answer

    def silent_texts(self) -> list[str]:
        """Texts around tokens where the feature is silent, to score a hypothesis on.

        Raises:
            RefusedError: the hypothesis is not written down yet.
        """
        if not is_sealed(self._entries):
            raise RefusedError("silent texts are shown only after a hypothesis is written down")
        return self._answers.silent_texts()


def problems(error: ValidationError) -> str:
    """Which keys are wrong, and how."""
    return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())


def _as_json(content: Any) -> Any:
    """Something as it is written down: with :data:`DIGITS` digits, and None for NaN and infinity.

    NumPy has integers of its own; they are written as others.
    """
    return json.loads(
        json.dumps(content, default=operator.index),
        parse_float=lambda number: float(f"{float(number):.{DIGITS}g}"),
        parse_constant=lambda _: None,
    )
