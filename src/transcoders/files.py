"""Writing files so that nothing half-written is ever left under its final name."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transcoders.errors import UserError

if TYPE_CHECKING:
    import pandas as pd


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that takes its name when the block succeeds.

    The temporary name is hidden and keeps the suffix, since some writers choose a format by it.
    On an error, or on the way out of a killed process's successor, the temporary file is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.partial{path.suffix}")
    _remove(temporary)
    try:
        yield temporary
        temporary.replace(path)
    finally:
        _remove(temporary)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """As :func:`atomic_path`, for a folder. A folder already at ``path`` is replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    _remove(temporary)
    temporary.mkdir()
    try:
        yield temporary
        _remove(path)
        temporary.replace(path)
    finally:
        _remove(temporary)


def write_json(path: Path, record: Any) -> None:
    """Write ``record`` as indented JSON with a final newline, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def write_table(path: Path, table: "pd.DataFrame") -> None:
    """Write ``table`` as CSV with six significant digits, atomically."""
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")


def read_json(path: Path) -> Any:
    """Read JSON, naming the file in every error.

    Raises:
        UserError: the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run snakemake to make it") from None
    except ValueError as error:
        raise UserError(f"{path}: expected JSON, found {error}; delete it and run again") from None


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check_sha256(path: Path, expected: str | None, remedy: str) -> None:
    """Compare a file's SHA-256 with the one recorded for it, which None, if none was, is not.

    Raises:
        UserError: they differ; the message ends with ``remedy``.
    """
    found = sha256(path)
    if found != expected:
        raise UserError(f"{path}: expected SHA-256 {expected}, found {found}; {remedy}")


def free_bytes(folder: Path) -> int:
    """Free on the file system of ``folder``, which need not exist yet."""
    existing = next(p for p in [folder, *folder.absolute().parents] if p.exists())
    return shutil.disk_usage(existing).free


def check_disk(folder: Path, needed_bytes: int, what: str) -> None:
    """Refuse to start work that the disk cannot hold.

    Raises:
        UserError: fewer than ``needed_bytes`` are free on the file system of ``folder``.
    """
    free = free_bytes(folder)
    if free < needed_bytes:
        raise UserError(
            f"{folder}: {what} needs {needed_bytes / 1e9:.2f} GB of disk, "
            f"{free / 1e9:.2f} GB are free; free some space, or lower the sizes in the scale file"
        )


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
