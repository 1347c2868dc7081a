"""The record of a blind study: every question in order, each entry bound to all before it.

An entry says what was asked, with which arguments, and the SHA-256 of the answer or the reason for
a refusal. No clock is read, so the same study gives the same bytes. Every entry holds the digest of
the entry before it, and its own digest covers that one. So the last digest, the **seal**, stands
for the whole record: whoever changes, drops, moves or inserts an entry breaks the chain.

The file is written anew for every entry, before the answer is given. So whatever an analyst has
learnt is on record, however a study ends.

The chain does not stop somebody who computes all later digests again. Note the seal in a place
where it cannot be changed: Table 4 has a column for it.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from transcoders.errors import UserError
from transcoders.files import read_json, write_json

OPENED, REVEALED = "open", "reveal"
"""The first question of every transcript, and the last question of a sealed one."""
NOTHING = "0" * 64
"""What the first entry holds in place of an earlier digest."""
Entry = dict[str, Any]


def add_entry(
    path: Path, entries: list[Entry], question: str, arguments: dict[str, Any], *,
    answer: Any, refused: str | None = None,
) -> None:  # fmt: skip
    """Write one more entry, to the file and to the list.

    Args:
        path: the transcript.
        entries: all of it so far.
        question: the name of what is asked.
        arguments: the arguments of the question, as JSON.
        answer: the answer as JSON; only its digest is kept.
        refused: why there is no answer.

    Raises:
        OSError: the file cannot be written; the record is then as before.
    """
    entry = {
        "number": len(entries),
        "question": question,
        "arguments": arguments,
        "answer": digest(answer) if refused is None else None,
        "refused": refused,
        "previous": entries[-1]["digest"] if entries else NOTHING,
    }
    entry["digest"] = digest(entry)
    write_json(path, [*entries, entry])
    entries.append(entry)


def digest(record: Any) -> str:
    """SHA-256 of something as JSON without spaces and with sorted keys, in hexadecimal."""
    text = json.dumps(record, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def is_sealed(entries: list[Entry]) -> bool:
    """Whether a hypothesis was accepted. Nothing is answered or recorded after that."""
    return bool(entries) and entries[-1]["question"] == REVEALED and entries[-1]["refused"] is None


def verify_transcript(path: Path) -> list[Entry]:
    """Check that a transcript is whole, in order, and sealed with a hypothesis.

    Returns:
        Its entries. The last one holds the hypothesis, and its digest is the seal.

    Raises:
        UserError: it is not; the message names the first entry at fault.
    """
    entries: list[Entry] = read_json(path)
    previous = NOTHING
    for number, entry in enumerate(entries):
        content = {name: value for name, value in entry.items() if name != "digest"}
        if entry["digest"] != digest(content) or entry["previous"] != previous:
            raise UserError(
                f"{path}: entry {number}: expected the entry that was written there, found a "
                "change in it or before it; restore the file, or carry the study out again"
            )
        previous = entry["digest"]
    if [number for number, entry in enumerate(entries, 1) if is_sealed([entry])] != [len(entries)]:
        raise UserError(
            f"{path}: expected an accepted hypothesis at the end, and only there; the study was "
            "not finished, or the file was cut"
        )
    return entries
