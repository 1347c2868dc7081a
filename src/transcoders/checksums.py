"""SHA-256 of files: of what is fetched and of what is made.

What is made under the current folder, the root of a checkout, is put on record: the hash of
``results/laptop/evaluation.csv`` stands in ``.checksums/results/laptop/evaluation.csv``, as
sha256sum writes it, so that ``find .checksums -type f -exec cat {} + | sha256sum --check`` needs
none of this code. Whoever reads a table or a record checks it first, and Snakemake checks all small
files when it starts. So a file that was damaged, exchanged or edited after it was made does not
become part of a result.

The records belong to the machine that made the files and are not committed. Files without a record,
such as those of a fresh clone, are not checked: git knows whether they changed.
"""

import hashlib
import shutil
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
    """Compare a file's SHA-256 with the one recorded for it, which None, if none was, is not.

    Raises:
        UserError: the file is missing or differs; the message ends with ``remedy``.
    """
    found = sha256(path) if path.exists() else "no such file"
    if found != expected:
        raise UserError(f"{path}: expected SHA-256 {expected}, found {found}; {remedy}")


@contextmanager
def recorded(path: Path) -> Iterator[None]:
    """Put on record the file, or all files of the folder, that the block leaves at ``path``.

    Meanwhile nothing is on record: a process killed in the block leaves files that nobody vouches
    for, rather than some that look damaged.
    """
    record = _record_of(path)
    if record is None:
        yield
        return
    if record.is_dir():
        shutil.rmtree(record)
    else:
        record.unlink(missing_ok=True)
    yield
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file() and (place := _record_of(file)):
            place.parent.mkdir(parents=True, exist_ok=True)
            temporary = place.with_name(f".{place.name}.partial")
            temporary.write_text(f"{sha256(file)}  {place.relative_to(RECORDS)}\n")
            temporary.replace(place)


def check_made(path: Path) -> None:
    """Compare a file with what it was when it was made, if that is on record.

    Raises:
        UserError: it was changed since.
    """
    record = _record_of(path)
    if record is None or not record.is_file() or not path.is_file():
        return
    words = record.read_text(errors="replace").split()
    expected, found = words[0] if words else "nothing", sha256(path)
    if found != expected:
        raise UserError(
            f"{path}: expected SHA-256 {expected}, as when it was made, found {found}; delete it "
            f"and run again (if you or git changed it on purpose, delete {record} instead)"
        )


def made_sha256(path: Path) -> str:
    """SHA-256 of a file, for the record of something made from it.

    Raises:
        UserError: it is missing, or was changed since it was made.
    """
    check_made(path)
    if not path.exists():
        raise UserError(f"{path}: no such file; run snakemake to make it")
    return sha256(path)


def check_folders(folders: Iterable[Path], *, largest: int | None = None) -> int:
    """Compare all files on record below some folders with what they were.

    Args:
        folders: below the current one; they need not exist.
        largest: leave out files of more bytes, which are checked when they are read.

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
    """Where the hash of a file is kept, if it is one to be kept: here, and not a temporary one."""
    try:
        inside = path.absolute().relative_to(Path.cwd())
    except ValueError:
        return None
    return None if any(part.startswith(".") for part in inside.parts) else RECORDS / inside
