"""What a rater said, and the file in which it is kept."""

import re
from pathlib import Path
from typing import Literal, get_args

from pydantic import BaseModel, ValidationError

from transcoders.errors import UserError
from transcoders.files import read_json, write_json

Verdict = Literal["interpretable", "maybe", "uninterpretable"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
PERSON = "person"
NO_PERSON = "no person rated"
"""Said wherever ratings of language models alone decide."""


class Rating(BaseModel, frozen=True, extra="forbid"):
    """What a rater said of one item."""

    verdict: Verdict | None = None
    context_free: bool = False
    """Whether the feature is active on a single token whatever the context."""
    note: str = ""


class Record(BaseModel, frozen=True, extra="forbid"):
    """The file of one rater."""

    rater: str
    language_model: str | None = None
    """Which language model rated; None for a person."""
    weights: list[str]
    """SHA-256 of the weights of both dictionaries."""
    n_items: int
    nonce: str
    commitment: str
    """SHA-256 of nonce, key and items."""
    finished: bool = False
    """The rater has rated everything and hands the file over. Nothing can be changed then."""
    ratings: dict[int, Rating] = {}
    """By item, from 1."""

    @property
    def by(self) -> str:
        """``person``, or the name of the language model."""
        return PERSON if self.language_model is None else self.language_model

    @property
    def unrated(self) -> list[int]:
        """Items that still have no verdict."""
        items = range(1, self.n_items + 1)
        return [item for item in items if self.rating(item).verdict is None]

    def rating(self, item: int) -> Rating:
        """What was said of an item: nothing, if the rater has not seen it yet."""
        return self.ratings.get(item, Rating())


def record_path(folder: Path, rater: str) -> Path:
    """Where a rater's file is.

    Raises:
        UserError: the name cannot be a file's.
    """
    if re.fullmatch(r"[A-Za-z0-9_-]{1,40}", rater) is None:
        raise UserError(
            f"rater: expected 1 to 40 of the characters A-Z a-z 0-9 _ -, found {rater!r}; "
            "choose another name"
        )
    return folder / f"{rater}.json"


def save_record(folder: Path, record: Record) -> None:
    """Write a rater's file, all or nothing."""
    ordered = record.model_copy(update={"ratings": dict(sorted(record.ratings.items()))})
    write_json(record_path(folder, record.rater), ordered.model_dump())


def load_record(folder: Path, rater: str) -> Record:
    """Read a rater's file.

    Raises:
        UserError: it is missing or damaged, or another rater's.
    """
    path = record_path(folder, rater)
    try:
        record = Record.model_validate(read_json(path))
    except ValidationError as error:
        raise UserError(
            f"{path}: expected ratings as the page writes them, found {error}; restore the file"
        ) from None
    if record.rater != rater:
        raise UserError(
            f"{path}: expected ratings by {rater}, found some by {record.rater}; name the file "
            "after who rated"
        )
    return record
