"""Blind studies: explain a feature from circuits, with no token of a prompt in sight (section 4.3).

    study = BlindStudy("laptop", feature="tc20[665]", transcript=Path("tc20-665.json"))
    study.examples()                                   # rows, positions, activations
    study.circuit(row=17, position=40).table()         # Algorithm 1
    study.de_embedding("tc20[665] <- attn19[2]")       # weights alone
    study.reveal("Fires on ...").examples              # only now: what is written there

Model, text and tokenizer are in a **process of their own**, with a
:class:`~transcoders.case_studies.study_server.StudyServer`. The analyst's process never loads them:
a :class:`BlindStudy` writes a question to a pipe as a line of JSON and reads a line with the
answer. The server writes every question to the transcript before its answer leaves
(:mod:`~transcoders.case_studies.transcript`), and rounds to six digits.

**Answered**, by the paper's rule: rows, positions, activations, and circuits whose nodes are
numbers; and what weights alone say: de-embeddings, direct logits, connections, pull-backs. A
pull-back is a name for a vector: ``tc8[355] <- attn5[6] <- tc0[12]`` is what feature 12 of layer 0
reads to move, through head 6 of layer 5, feature 355 of layer 8. It holds nothing of a prompt:
attention only scales such vectors. **Refused**: texts, token ids, logits, and every vector that a
prompt makes.

**Restricted**, the stricter variant, also refuses what a prompt makes of layer 0's features: their
activations, and circuits that explain them. In other circuits all of them at a token are one node,
``mlp0@t``. They are put together before paths are searched for, so that no search tells them apart.

**Out of reach**: whoever reads the text's files, looks into the server's memory or changes this
code sees tokens. The allowed numbers depend on the tokens, too: an analyst who searches the
vocabulary for tokens that fit the numbers breaks the rule. The transcript shows what was asked,
not what was done with the answers.
"""

import json
import operator
import os
import subprocess
import sys
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, NamedTuple

import networkx as nx
import pandas as pd

from transcoders.case_studies.study_server import EXAMPLE_COLUMNS, RefusedError
from transcoders.case_studies.transcript import REVEALED
from transcoders.circuits.export import paths_of_record
from transcoders.circuits.graph import build_graph
from transcoders.circuits.paths import ComputationalPath, strongest
from transcoders.errors import UserError


class BlindCircuit(NamedTuple):
    """Why a feature is active at a place, in numbers."""

    paths: list[ComputationalPath]
    graph: nx.DiGraph

    def table(self, n: int = 15) -> str:
        """The strongest paths, a line each: attribution and nodes from the target back."""
        return "\n".join(f"{path.attribution:+9.3f}  {path}" for path in strongest(self.paths, n))


class Revealed(NamedTuple):
    """What is written where a feature is active."""

    examples: pd.DataFrame
    """:data:`EXAMPLE_COLUMNS`, and ``text`` with the peak in ⟦ ⟧."""
    seal: str
    """Digest of the whole transcript. Note it elsewhere."""


class Questions(ABC):
    """What an analyst can ask, of a server or of a record. Each may raise :class:`RefusedError`.

    The server's methods of the same names describe all arguments.

    Attributes:
        facts: sizes of text and model; how often and how strongly the feature is active.
    """

    facts: dict[str, Any]

    @abstractmethod
    def ask(self, question: str, /, **arguments: Any) -> Any:
        """Put any question by its name, and get the answer as JSON."""

    def examples(self) -> pd.DataFrame:
        """Where the feature is most active, and a fair sample: :data:`EXAMPLE_COLUMNS`."""
        return pd.DataFrame(self.ask("examples"), columns=EXAMPLE_COLUMNS)

    def activations(self, row: int, **arguments: Any) -> "pd.Series[float]":
        """Of a feature on a row, by position."""
        found = dict(self.ask("activations", row=row, **arguments))
        return pd.Series(found, name="activation", dtype=float)

    def circuit(self, row: int, position: int, **arguments: Any) -> BlindCircuit:
        """Of a feature at a place, by Algorithms 1 and 2."""
        paths = paths_of_record(self.ask("circuit", row=row, position=position, **arguments))
        return BlindCircuit(paths, build_graph(paths))

    def pull_back(self, vector: str, through: str) -> str:
        """Name of what a head or an earlier feature reads to move a feature vector."""
        return str(self.ask("pull_back", vector=vector, through=through))

    def de_embedding(self, vector: str, **arguments: Any) -> pd.DataFrame:
        """The tokens that drive a vector most: rows ``token, value``."""
        return _table("token", self.ask("de_embedding", vector=vector, **arguments))

    def direct_logits(self, feature: str, **arguments: Any) -> pd.DataFrame:
        """The tokens whose logits a feature moves most: rows ``token, value``."""
        return _table("token", self.ask("direct_logits", feature=feature, **arguments))

    def connections(self, vector: str, layer: int, **arguments: Any) -> pd.DataFrame:
        """The features of a layer that move a vector most: rows ``feature, value``."""
        return _table("feature", self.ask("connections", vector=vector, layer=layer, **arguments))

    def reveal(self, hypothesis: str, **arguments: Any) -> Revealed:
        """Write down a hypothesis, which ends the blind study, and see the text."""
        found = self.ask(REVEALED, hypothesis=hypothesis, **arguments)
        columns = [*EXAMPLE_COLUMNS, "text"]
        return Revealed(pd.DataFrame(found["examples"], columns=columns), found["seal"])


class BlindStudy(Questions):
    """The analyst's side of a study. Use it in a ``with`` block, or close it at the end."""

    def __init__(
        self, scale: str, *, feature: str, restricted: bool = False, transcript: Path
    ) -> None:
        """Start a server.

        Args:
            scale: name of a file in ``config/``, whose results are there.
            feature: of a headline transcoder of the rated model, such as ``tc20[665]``.
            restricted: whether to hide what prompts make of layer 0's features, too.
            transcript: a file that does not exist yet.

        Raises:
            UserError: something is missing, or the transcript exists.
        """
        opening = json.dumps([scale, feature, restricted, str(transcript)])
        self._asked = 0
        self._process = subprocess.Popen(
            [sys.executable, "-m", "transcoders.case_studies.study_server", opening],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            start_new_session=True,  # Ctrl+C in a notebook interrupts a question, not the server
        )
        self.facts = self._answer()

    def ask(self, question: str, /, **arguments: Any) -> Any:
        """Put any question to the server."""
        assert self._process.stdin is not None
        self._asked += 1
        line = json.dumps(
            [self._asked, question, arguments], default=operator.index
        )  # NumPy has integers of its own
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except (BrokenPipeError, ValueError):  # ValueError: the study was closed
            raise UserError("blind study: its process has ended; open another study") from None
        return self._answer()

    def close(self) -> None:
        """End the server. A transcript that is not sealed stays so."""
        self._process.communicate()

    def __enter__(self) -> "BlindStudy":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _answer(self) -> Any:
        """The answer to the last question. Answers to interrupted questions are skipped."""
        assert self._process.stdout is not None
        number = -1
        while number != self._asked:
            line = self._process.stdout.readline()
            if not line:
                raise UserError("blind study: its process ended without an answer")
            number, answer, refused = json.loads(line)
        if refused is not None:
            raise RefusedError(refused)
        return answer


def _table(name: str, pairs: list[list[Any]]) -> pd.DataFrame:
    return pd.DataFrame(pairs, columns=[name, "value"])
