"""Blind studies: explain a feature from circuits, with no token of a prompt in sight (section 4.3).

    study = BlindStudy.open("laptop", feature="tc20[665]", transcript=Path("tc20-665.json"))
    study.examples()                                   # rows, positions, activations
    study.circuit(row=17, position=40).table()         # Algorithm 1
    study.de_embedding("tc20[665] <- attn19[2]")       # weights alone
    study.reveal("Fires on ...").examples              # only now: what is written there

Model, text and tokenizer are in a **process of their own**, with a
:class:`~transcoders.case_studies.study_server.StudyServer`. The analyst's process never loads them:
a :class:`BlindStudy` is a pipe, a question going in as a line of JSON and an answer coming out as
one. So nothing is to be found in its attributes, frames, copies or pickles, and patching it changes
what is asked, never what is answered. The server answers what it lists in ``questions``, checks
arguments by type, writes every question to the transcript before the answer leaves
(:mod:`~transcoders.case_studies.transcript`), and rounds to six digits.

**Answered**, by the paper's rule: rows, positions, activations, and circuits whose nodes are
numbers; and what weights alone say: de-embeddings, direct logits, connections, pull-backs. A
pull-back is named, not held: ``tc8[355] <- attn5[6] <- tc0[12]`` is what feature 12 of layer 0
reads to move, through head 6 of layer 5, feature 355 of layer 8. No prompt is in it: attention only
scales such vectors. **Refused**: texts, token ids, logits, and every vector that a prompt makes.

**Restricted**, the stricter variant, refuses besides what a prompt makes of layer 0's features:
their activations, and circuits that explain them. In other circuits all of them at a token are one
node, ``mlp0@t``, put together before paths are searched for, so that no search tells them apart.

**Out of reach**: whoever can read the text's files, look into the server's memory or change this
code sees tokens. And the numbers that the rule allows depend on the tokens: to search the
vocabulary for what fits them breaks the rule by arithmetic. The transcript shows what was asked
for, not what was done with it.
"""

import contextlib
import json
import numbers
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

from transcoders.case_studies.questions import Questions, RefusedError
from transcoders.case_studies.study_server import UNREADABLE, StudyFiles
from transcoders.errors import UserError

START = "from transcoders.case_studies.study_server import serve; serve()"


class BlindStudy(Questions):
    """The analyst's side of a study."""

    __slots__ = ("__weakref__", "_asked", "_facts", "_name", "_process")

    def __init__(
        self, files: StudyFiles, *, feature: str, restricted: bool = False, transcript: Path
    ) -> None:
        """Start a server.

        Args:
            files: of the model, its transcoders and the text.
            feature: which is to be explained: ``tc20[665]``.
            restricted: whether layer 0's features on a prompt are hidden too.
            transcript: a file that there is not yet.

        Raises:
            UserError: something is missing, or the transcript is there.
        """
        self._name, self._asked = feature, 0
        self._process = subprocess.Popen(
            [sys.executable, "-c", START],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            start_new_session=True,  # what interrupts the analyst does not interrupt the server
        )
        try:
            self._facts = self._exchange(
                files=files.model_dump(mode="json"),
                feature=feature,
                restricted=restricted,
                transcript=str(transcript),
            )
        except BaseException:
            self.close()
            raise

    @classmethod
    def open(
        cls,
        scale: str,
        *,
        feature: str,
        restricted: bool = False,
        transcript: Path,
        model: str | None = None,
        device: str = "cpu",
    ) -> "BlindStudy":
        """Study a feature of a scale's headline transcoders; see :meth:`StudyFiles.of_scale`."""
        files = StudyFiles.of_scale(scale, model, device=device)
        return cls(files, feature=feature, restricted=restricted, transcript=transcript)

    def ask(self, question: str, /, **arguments: Any) -> Any:
        """Put any question to the server."""
        return self._exchange(question=question, arguments=arguments)

    @property
    def facts(self) -> dict[str, Any]:
        """What the server told when it began."""
        return dict(self._facts)

    def close(self) -> None:
        """End the server. A transcript that is not sealed stays so."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def __enter__(self) -> "BlindStudy":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"BlindStudy({self._name}, {self._asked - 1} questions)"

    def __reduce_ex__(self, _: object) -> NoReturn:
        raise TypeError("a blind study is one conversation: it cannot be copied or pickled")

    def _exchange(self, **message: Any) -> Any:
        """Send a line and wait for the one that answers it."""
        assert self._process.stdin is not None and self._process.stdout is not None
        number, self._asked = self._asked, self._asked + 1
        line = json.dumps({"number": number, **message}, default=_plain)
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except (BrokenPipeError, ValueError):  # it is gone; the pipe is closed
            raise UserError("blind study: its process has ended; open another study") from None
        reply = None
        # An interrupted question leaves its answer in the pipe.
        while reply is None or reply["number"] not in (number, UNREADABLE):
            reply = json.loads(self._process.stdout.readline() or "null")
            if reply is None:
                raise UserError("blind study: its process ended without an answer")
        if reply["refused"] is not None:
            raise RefusedError(reply["refused"])
        return reply["answer"]


def _plain(value: object) -> int | str:
    """What JSON does not know: a table's numbers; of anything else, what it is, to be refused."""
    return int(value) if isinstance(value, numbers.Integral) else f"<{type(value).__name__}>"
