"""What a rater said, and the file in which it is kept."""

import re
from pathlib import Path
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from transcoders.checksums import check_made
from transcoders.errors import UserError
from transcoders.files import write_json

Verdict = Literal["interpretable", "maybe", "uninterpretable"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)


class Rating(BaseModel):
    """What a rater said of one item."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    verdict: Verdict | None = None
    context_free: bool = False
    """Whether the feature is active on a single token whatever the context."""
    note: str = ""


class Record(BaseModel):
    """The file of one rater."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    rater: str
    n_items: int
    nonce: str
    commitment: str
    """SHA-256 of nonce, key and items."""
    finished: bool = False
    """The rater has rated everything and gives it out of hand. Nothing can be changed then."""
    ratings: dict[int, Rating] = {}
    """By item, from 1."""

    @property
    def unrated(self) -> list[int]:
        """Items that still have no verdict."""
        return [
            number
            for number in range(1, self.n_items + 1)
            if number not in self.ratings or self.ratings[number].verdict is None
        ]

    @property
    def n_rated(self) -> int:
        """How many items have a verdict."""
        return self.n_items - len(self.unrated)


def is_rater(name: str) -> bool:
    """Whether a name is fit for a rater, and so for a file."""
    return re.fullmatch(r"[A-Za-z0-9_-]{1,40}", name) is not None


def record_path(folder: Path, rater: str) -> Path:
    """Where a rater's file is.

    Raises:
        UserError: the name is not fit to be a file's.
    """
    if not is_rater(rater):
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
        UserError: it is missing, damaged or of another rater.
    """
    path = record_path(folder, rater)
    check_made(path)
    try:
        record = Record.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; begin to rate as {rater}") from None
    except (ValidationError, ValueError) as error:
        raise UserError(
            f"{path}: expected ratings as the page writes them, found {error}; restore the file"
        ) from None
    numbers = set(record.ratings) - set(range(1, record.n_items + 1))
    if record.rater != rater or numbers:
        raise UserError(
            f"{path}: expected ratings by {rater} of items 1 to {record.n_items}, found rater "
            f"{record.rater} and other items {sorted(numbers)}; restore the file"
        )
    return record
