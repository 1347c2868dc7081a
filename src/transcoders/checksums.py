"""The record of what was made here: by which command, and with which hash.

Whatever is made below the current folder, the root of a checkout, is put on record. The record of
``results/laptop/evaluation.csv`` is the file ``.checksums/results/laptop/evaluation.csv``. It holds
the SHA-256 as sha256sum writes it, and the command line as a comment. So
``find .checksums -type f -exec cat {} + | sha256sum --check`` needs none of this code.

The functions of :mod:`transcoders.files` write the records and check them whenever they read a
file. Snakemake checks all small files when it starts. So a file that was damaged, exchanged or
edited after it was made does not become part of a result.

The records belong to the machine that made the files and are not committed. A file without a
record, such as one of a fresh clone, is not checked: git knows whether it changed.
"""

import hashlib
import shlex
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from transcoders.errors import UserError

RECORDS = Path(".checksums")


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check_sha256(path: Path, expected: str | None, remedy: str) -> None:
    """Compare a file's SHA-256 with the one that another record holds; None never agrees.

    Raises:
        UserError: the file is missing or differs; the message ends with ``remedy``.
    """
    found = sha256(path) if path.exists() else "no such file"
    if found != expected:
        raise UserError(f"{path}: expected SHA-256 {expected}, found {found}; {remedy}")


@contextmanager
def recorded(path: Path) -> Iterator[None]:
    """Put on record the file, or all files of the folder, that the block leaves at ``path``.

    Nothing is on record while the block runs. If it is killed, the files that it leaves count as
    unknown, not as damaged.
    """
    record = _record_of(path)
    if record and record.is_dir():
        shutil.rmtree(record)
    elif record:
        record.unlink(missing_ok=True)
    yield
    command = shlex.join(sys.argv).replace("\n", " ")
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file() and (place := _record_of(file)):
            place.parent.mkdir(parents=True, exist_ok=True)
            temporary = place.with_name(f".{place.name}.partial")
            line = f"{sha256(file)}  {place.relative_to(RECORDS)}"
            temporary.write_text(f"{line}\n# {command}\n", encoding="utf-8")
            temporary.replace(place)


def check_made(path: Path) -> None:
    """Compare a file with its record, if it has one.

    Raises:
        UserError: the file was changed since it was made.
    """
    record = _record_of(path)
    if record is None or not record.is_file() or not path.is_file():
        return
    expected = record.read_text(errors="replace").partition(" ")[0].strip()
    instead = f"(if you or git changed it on purpose, delete {record} instead)"
    changed = f"it was changed after it was made: delete it and run again {instead}"
    check_sha256(path, expected, changed)


def check_folders(folders: Iterable[Path], *, largest: int | None = None) -> int:
    """Compare all files below some folders with their records.

    Args:
        folders: below the current one; they need not exist.
        largest: leave out files of more bytes; they are checked when they are read.

    Returns:
        How many files were compared.

    Raises:
        UserError: some were changed since they were made; the message names them all.
    """
    checked, problems = 0, []
    for record in sorted(record for folder in folders for record in (RECORDS / folder).rglob("*")):
        path = record.relative_to(RECORDS)
        if path.is_file() and (largest is None or path.stat().st_size <= largest):
            checked += 1
            try:
                check_made(path)
            except UserError as error:
                problems.append(str(error))
    if problems:
        raise UserError("\n".join(problems))
    return checked


def _record_of(path: Path) -> Path | None:
    """The record of a file below the current folder; hidden and temporary files have none."""
    if not path.absolute().is_relative_to(Path.cwd()):
        return None
    inside = path.absolute().relative_to(Path.cwd())
    return None if any(part.startswith(".") for part in inside.parts) else RECORDS / inside
