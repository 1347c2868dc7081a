"""The record of a blind study: every question in order, each entry bound to all before it.

An entry says what was asked, with which arguments, and the SHA-256 of the answer or why there was
none. No clock is read, so the same study gives the same bytes. Every entry holds the digest of the
one before, and its own digest covers that, so the last one, the **seal**, stands for the whole
record: an entry that is changed, dropped, moved or put in breaks the chain.

The file is written whole at every entry, before the answer leaves: whatever an analyst has learnt
is on record, however a study ends. Questions are few, so this costs nothing.

A chain does not stop somebody who computes every later digest anew. Note the seal where it cannot
be changed (a commit, a mail to a colleague) and give it to :func:`verify_transcript`.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

from transcoders.errors import UserError
from transcoders.files import read_json, write_json

OPENED, REVEALED = "open", "reveal"
"""The first question of every transcript, and the last of one that is sealed."""
FIELDS = ("number", "question", "arguments", "answer", "refused", "previous", "digest")
NOTHING = "0" * 64
"""What the first entry holds as the digest before it."""


class Verified(NamedTuple):
    """What a sound transcript says."""

    entries: list[dict[str, Any]]
    hypothesis: str
    """Written before a token was seen."""
    seal: str
    """The last entry's digest."""


class Transcript:
    """A record that only grows, until it is sealed."""

    def __init__(self, path: Path) -> None:
        """Begin a record; the file appears with its first entry.

        Raises:
            UserError: there is one already: a study is not written over.
        """
        if path.exists():
            raise UserError(
                f"{path}: there is a transcript already, and it stays; name another file"
            )
        self._path = path
        self._entries: list[dict[str, Any]] = []

    @property
    def is_sealed(self) -> bool:
        """Whether a hypothesis was accepted: nothing is added any more."""
        return bool(self._entries) and _is_seal(self._entries[-1])

    def add(
        self,
        question: str,
        arguments: dict[str, Any],
        *,
        answer: Any = None,
        refused: str | None = None,
    ) -> str:
        """Write an entry to the file, and return its digest.

        Args:
            question: name of what is asked.
            arguments: of the question, as JSON.
            answer: as JSON; only its digest is kept.
            refused: why there is none.

        Raises:
            OSError: it cannot be written; the record is then as before.
        """
        entry = {
            "number": len(self._entries),
            "question": question,
            "arguments": arguments,
            "answer": digest(answer) if refused is None else None,
            "refused": refused,
            "previous": self._entries[-1]["digest"] if self._entries else NOTHING,
        }
        entry["digest"] = digest(entry)
        write_json(self._path, [*self._entries, entry])
        self._entries.append(entry)
        return str(entry["digest"])


def digest(record: Any) -> str:
    """SHA-256 of something as JSON without spaces and with sorted keys, in hexadecimal."""
    text = json.dumps(record, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def verify_transcript(path: Path, *, seal: str | None = None) -> Verified:
    """Check that a transcript is whole, in order, and sealed with a hypothesis.

    Args:
        path: of the file.
        seal: the last digest, as noted elsewhere; without it, a transcript that was computed anew
            from some entry on cannot be told from a true one.

    Raises:
        UserError: it is not; the message names the first entry at fault.
    """
    entries = read_json(path)
    if not isinstance(entries, list) or not entries:
        raise UserError(f"{path}: expected the entries of a transcript, found none")
    previous = NOTHING
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict) or tuple(entry) != FIELDS:
            raise UserError(f"{path}: entry {number}: expected the fields {', '.join(FIELDS)}")
        content = {name: value for name, value in entry.items() if name != "digest"}
        if entry["digest"] != digest(content):
            raise UserError(f"{path}: entry {number}: it was changed after it was written")
        if entry["previous"] != previous or entry["number"] != number:
            raise UserError(
                f"{path}: entry {number}: it does not follow the one before; entries were "
                "dropped, moved or put in"
            )
        if (entry["question"] == OPENED) != (number == 0):
            raise UserError(f"{path}: entry {number}: expected {OPENED!r} first, and only there")
        if _is_seal(entry) != (number == len(entries) - 1):
            raise UserError(
                f"{path}: entry {number}: expected an accepted {REVEALED!r} last, and only there; "
                "without one the transcript is not sealed, or its end was cut off"
            )
        previous = entry["digest"]
    arguments = entries[-1]["arguments"]
    hypothesis = arguments.get("hypothesis") if isinstance(arguments, dict) else None
    if not isinstance(hypothesis, str) or not says_something(hypothesis):
        raise UserError(f"{path}: expected a hypothesis, found {hypothesis!r}")
    if seal is not None and previous != seal:
        raise UserError(f"{path}: expected the seal {seal}, found {previous}")
    return Verified(entries, hypothesis, previous)


def says_something(hypothesis: str) -> bool:
    """Whether there is a letter or digit in it: blanks and dashes explain nothing."""
    return any(character.isalnum() for character in hypothesis)


def _is_seal(entry: dict[str, Any]) -> bool:
    return entry["question"] == REVEALED and entry["refused"] is None
