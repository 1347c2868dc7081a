"""The one place where files are written and read.

Nothing half-written is ever left under its final name. What is made is recorded, and it is checked
when it is read (:mod:`transcoders.checksums`).
"""

import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from safetensors import SafetensorError
from yaml.constructor import ConstructorError

from transcoders import checksums
from transcoders.errors import UserError
from transcoders.short_repr import short_repr

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

AGAIN = "delete it and run again"
NAMES = ("document", "source", "model", "study", "rater", "token", "text", "layers")
"""Columns of tables that hold names or text, even where these look like numbers."""


def atomic_path(path: Path) -> AbstractContextManager[Path]:
    """Yield a temporary path beside ``path``; it takes that name when the block succeeds.

    The temporary name is hidden and keeps the suffix, since some writers choose a format by it. If
    the block fails, what it wrote is removed. If it is killed, the next attempt removes that. The
    file is not recorded: use this for a file whose hash is kept elsewhere.

    Raises:
        UserError: tensors cannot be written.
    """
    return _replacing(path, nullcontext())


def made_path(path: Path) -> AbstractContextManager[Path]:
    """Like :func:`atomic_path`, but the file is recorded."""
    return _replacing(path, checksums.recorded(path))


@contextmanager
def _replacing(path: Path, recording: AbstractContextManager[None]) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.partial{path.suffix}")
    _remove(temporary)
    try:
        yield temporary
        with recording:  # only now: until then the old file keeps its record
            if temporary.is_dir():
                _remove(path)
            temporary.replace(path)
    except SafetensorError as error:  # the library does not name the file
        raise UserError(
            f"{path}: could not be written ({error}); free some space, or see whether "
            "you may write there, and run again"
        ) from None
    finally:
        _remove(temporary)


@contextmanager
def made_folder(path: Path) -> Iterator[Path]:
    """Like :func:`made_path`, for a folder. A folder already at ``path`` is replaced."""
    with made_path(path) as temporary:
        temporary.mkdir()
        yield temporary


def write_json(path: Path, record: Any) -> None:
    """Write ``record`` as indented JSON with a final newline, atomically."""
    with made_path(path) as temporary:
        temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def write_table(path: Path, table: "pd.DataFrame") -> None:
    """Write ``table`` as CSV with six significant digits, atomically."""
    with made_path(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")


def save_tensors(
    path: Path, tensors: "dict[str, Tensor]", metadata: dict[str, str] | None = None
) -> None:
    """Write tensors in the format of safetensors, to a temporary path or folder."""
    from safetensors.torch import save_file

    save_file(tensors, path, metadata)


def read_json(path: Path) -> Any:
    """Read JSON, naming the file in every error.

    Raises:
        UserError: the file is missing, was changed since it was made, or is not JSON.
    """
    with _checked(path, "JSON"):
        return json.loads(path.read_text(encoding="utf-8"))


def read_table(path: Path, **options: Any) -> "pd.DataFrame":
    """Read a CSV or Parquet table, naming the file in every error.

    In CSV, only an empty field is a missing value, and columns of names are text: a document may be
    called ``NA`` or ``3.10``.

    Args:
        path: its suffix says which.
        options: of pandas' function.

    Raises:
        UserError: the file is missing, was changed since it was made, or is not such a table.
    """
    import pandas as pd

    with _checked(path, "a table"):
        if path.suffix == ".parquet":
            return pd.read_parquet(path, **options)
        names = dict.fromkeys(NAMES, str)
        as_written: dict[str, Any] = {"keep_default_na": False, "na_values": [""], "dtype": names}
        return pd.read_csv(path, **as_written | options)


def read_tensors(
    path: Path, *, sha256: str | None = None, remedy: str = AGAIN
) -> "dict[str, Tensor]":
    """Read a safetensors file, naming the file in every error.

    Args:
        path: the file.
        sha256: what another record says of its bytes.
        remedy: what the user can do about a file that is not as expected.

    Raises:
        UserError: the file is missing, was changed since it was made, or differs from ``sha256``.
    """
    from safetensors.torch import load_file

    with _checked(path, "safetensors", remedy, by_record=sha256 is None):
        tensors = load_file(path)
    if sha256 is not None:
        checksums.check_sha256(path, sha256, remedy)
    return tensors


def made_sha256(path: Path) -> str:
    """SHA-256 of a file, for the record of something made from it.

    Raises:
        UserError: the file is missing, or was changed since it was made.
    """
    with _checked(path, "a file"):
        return checksums.sha256(path)


@contextmanager
def _checked(
    path: Path, kind: str, remedy: str = AGAIN, *, by_record: bool = True
) -> Iterator[None]:
    """Check a file before the block reads it; name it if the block fails to read it.

    ``by_record`` is false where another record holds the hash: a large file is hashed once.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file; run snakemake to make it")
    if by_record:
        checksums.check_made(path)
    try:
        yield
    except (ValueError, SafetensorError, OSError) as error:
        if isinstance(error, OSError) and error.errno:  # the system's, which names the file
            raise
        raise UserError(f"{path}: expected {kind}, found {error}; {remedy}") from None


class _UniqueKeys(yaml.SafeLoader):
    """Refuses a key that is written twice; YAML would take the last one without a word."""

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)  # as it is written, before keys are merged
        first: dict[tuple[str, str], Any] = {}
        for key, _ in node.value:
            if first.setdefault((key.tag, str(key.value)), key) is not key:
                problem = f"the key {short_repr(key.value)} is there twice"
                raise ConstructorError(problem=problem, problem_mark=key.start_mark)
        return node


def read_yaml(path: Path) -> Any:
    """Read YAML that somebody wrote by hand, naming the file in every error unless it is missing.

    Raises:
        FileNotFoundError: there is no such file; the caller knows which files there are.
        UserError: it is not YAML in UTF-8, or a mapping has a key twice.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _UniqueKeys)
    except OSError:
        raise
    except Exception as error:  # of any class: what a wrong date, number, tag or nesting raises
        found = f"{type(error).__name__}: {error}"
        raise UserError(f"{path}: expected YAML in UTF-8, found {found}") from None


def date_back(folders: Iterable[Path]) -> None:
    """Give files that are dated in the future the present time, where that is allowed.

    A clock that was wrong, an archive or another machine may have dated them. Snakemake would take
    what is made from them for older, and delete it.
    """
    now = time.time()
    for path in (path for folder in folders for path in folder.rglob("*")):
        with suppress(OSError):
            if path.stat().st_mtime > now:
                os.utime(path)


def date_after(path: Path, sources: Iterable[Path]) -> None:
    """Give a file the time of the newest of its sources, where it is older and that is allowed."""
    with suppress(OSError):
        newest = max(source.stat().st_mtime_ns for source in sources)
        if path.stat().st_mtime_ns < newest:
            os.utime(path, ns=(newest, newest))


def free_bytes(folder: Path) -> int:
    """Free space on the file system of ``folder``, which need not exist yet."""
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
