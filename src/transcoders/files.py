"""Writing files so that nothing half-written is left under its final name, and reading them.

What is made is recorded, and checked when it is read (:mod:`transcoders.checksums`).
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from yaml.constructor import ConstructorError

from transcoders.checksums import check_made, check_sha256, recorded
from transcoders.errors import UserError
from transcoders.short_repr import short_repr

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that takes its name when the block succeeds.

    The temporary name is hidden and keeps the suffix, since some writers choose a format by it.
    On an error, or on the way out of a killed process's successor, the temporary file is removed.
    The file is not recorded: for one whose hash stands elsewhere.
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
def made_path(path: Path) -> Iterator[Path]:
    """As :func:`atomic_path`, and the file is recorded."""
    with recorded(path), atomic_path(path) as temporary:
        yield temporary


@contextmanager
def made_folder(path: Path) -> Iterator[Path]:
    """As :func:`made_path`, for a folder. A folder already at ``path`` is replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    _remove(temporary)
    temporary.mkdir()
    try:
        yield temporary
        with recorded(path):
            _remove(path)
            temporary.replace(path)
    finally:
        _remove(temporary)


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
    """Write tensors in the format of safetensors, to a temporary path or folder.

    Raises:
        UserError: it cannot be written.
    """
    from safetensors.torch import save_file

    with safetensors_errors(path):
        save_file(tensors, path, metadata)


@contextmanager
def safetensors_errors(path: Path) -> Iterator[None]:
    """Name the file in the error of a library that writes no file's name into its errors."""
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        raise UserError(
            f"{path}: could not be written ({error}); free some space, or see whether "
            "you may write there, and run again"
        ) from None


def read_json(path: Path) -> Any:
    """Read JSON, naming the file in every error.

    Raises:
        UserError: the file is missing, was changed since it was made, or is not JSON.
    """
    check_made(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run snakemake to make it") from None
    except ValueError as error:
        raise UserError(f"{path}: expected JSON, found {error}; delete it and run again") from None


def read_table(path: Path, **options: Any) -> "pd.DataFrame":
    """Read a CSV or Parquet table, naming the file in every error.

    Args:
        path: its suffix says which.
        options: of pandas' function.

    Raises:
        UserError: the file is missing, was changed since it was made, or is no such table.
    """
    import pandas as pd

    check_made(path)
    read = pd.read_parquet if path.suffix == ".parquet" else pd.read_csv
    try:
        return read(path, **options)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run snakemake to make it") from None
    except (ValueError, OSError) as error:  # of pandas and of pyarrow; theirs derive from these
        if isinstance(error, OSError) and error.errno is not None:  # the system's, not pyarrow's
            raise
        raise UserError(
            f"{path}: expected a table, found {error}; delete it and run again"
        ) from None


def read_tensors(
    path: Path,
    *,
    sha256: str | None = None,
    shapes: dict[str, tuple[int, ...]] | None = None,
    remedy: str = "delete it and run again",
) -> "dict[str, Tensor]":
    """Read a safetensors file, naming the file in every error.

    Args:
        path: the file.
        sha256: what another record says of its bytes.
        shapes: the tensors that it must hold, by name.
        remedy: what the user can do about a file that is not as expected.

    Raises:
        UserError: the file is missing, was changed since it was made, differs from ``sha256``, or
            does not hold these tensors.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.exists():
        raise UserError(f"{path}: no such file; run snakemake to make it")
    check_made(path)
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: expected safetensors, found {error}; {remedy}") from None
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if shapes is not None and found != shapes:
        raise UserError(f"{path}: expected tensors of shapes {shapes}, found {found}; {remedy}")
    if sha256 is not None:
        check_sha256(path, sha256, remedy)
    return tensors


class _UniqueKeys(yaml.SafeLoader):
    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)  # as it is written, before keys are merged
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    raise ConstructorError(
                        problem=f"the key {short_repr(key.value)} stands there twice",
                        problem_mark=key.start_mark,
                    )
                seen.add((key.tag, key.value))
        return node


def read_yaml(path: Path) -> Any:
    """Read YAML that somebody wrote by hand, naming the file in every error but a missing one's.

    Raises:
        FileNotFoundError: there is no such file; the caller knows which there are.
        UserError: it is not text or not YAML, or a mapping has a key twice, of which YAML would
            silently take the last.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _UniqueKeys)
    except OSError:
        raise
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: expected text in UTF-8, found: {error}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: expected YAML, found: {error}") from None
    except Exception as error:  # of any class: what a wrong date, number, tag or nesting raises
        raise UserError(
            f"{path}: expected YAML, found a value that cannot be read "
            f"({type(error).__name__}: {error})"
        ) from None


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
