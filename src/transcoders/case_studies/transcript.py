"""The record of a blind study: every question in order, each entry bound to all before it.

An entry says what was asked, with which arguments, and the SHA-256 of the answer or the reason for
a refusal. No clock is read, so the same study gives the same bytes. Every entry holds the digest of
the entry before it, and its own digest covers that one. So the last digest, the **seal**, stands
for the whole record: whoever changes, drops, moves or inserts an entry breaks the chain.

The file is written anew for every entry, before the answer leaves. Whatever an analyst has learnt
is on record, however a study ends.

The chain does not stop somebody who computes all later digests again. Note the seal in a place
where it cannot be changed: Table 4 has a column for it.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

from transcoders.errors import UserError
from transcoders.files import read_json, write_json

OPENED, REVEALED = "open", "reveal"
"""The first question of every transcript, and the last question of a sealed one."""
NOTHING = "0" * 64
"""What the first entry holds in place of an earlier digest."""


class Verified(NamedTuple):
    """What a sound transcript says."""

    entries: list[dict[str, Any]]
    hypothesis: str
    """Written before a token was seen."""
    seal: str
    """The last entry's digest."""


class Transcript:
    """A record that only grows, until it is sealed.

    Attributes:
        is_sealed: whether a hypothesis was accepted. Nothing can be added after that.
    """

    def __init__(self, path: Path) -> None:
        """Begin a record; the file appears with its first entry.

        Raises:
            UserError: the file exists already.
        """
        if path.exists():
            raise UserError(f"{path}: this transcript exists already and stays; name another file")
        self.is_sealed = False
        self._path = path
        self._entries: list[dict[str, Any]] = []

    def add(
        self, question: str, arguments: dict[str, Any], *, answer: Any = None, refused: Any = None
    ) -> str:
        """Write an entry to the file.

        Args:
            question: name of what is asked.
            arguments: of the question, as JSON.
            answer: as JSON; only its digest is kept.
            refused: why there is no answer.

        Returns:
            The entry's digest.

        Raises:
            OSError: the file cannot be written; the record is then as before.
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
        self.is_sealed = question == REVEALED and refused is None
        return str(entry["digest"])


def digest(record: Any) -> str:
    """SHA-256 of something as JSON without spaces and with sorted keys, in hexadecimal."""
    text = json.dumps(record, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def verify_transcript(path: Path) -> Verified:
    """Check that a transcript is whole, in order, and sealed with a hypothesis.

    Raises:
        UserError: it is not; the message names the first entry at fault.
    """
    entries, previous = read_json(path), NOTHING
    try:
        for number, entry in enumerate(entries):
            content = {name: value for name, value in entry.items() if name != "digest"}
            if entry["digest"] != digest(content) or entry["previous"] != previous:
                raise UserError(
                    f"{path}: entry {number}: expected the entry that was written there, found a "
                    "change in it or before it; restore the file, or carry the study out again"
                )
            if (entry["question"] == REVEALED and entry["refused"] is None) != (
                number == len(entries) - 1
            ):
                raise UserError(
                    f"{path}: entry {number}: expected an accepted hypothesis at the end, and only "
                    "there; the study was not finished, or the file was cut"
                )
            previous = entry["digest"]
        return Verified(entries, str(entries[-1]["arguments"]["hypothesis"]), previous)
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise UserError(f"{path}: expected the entries of a transcript ({error!r})") from None
