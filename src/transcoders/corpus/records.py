"""Records of a file with text or of a dataset of the hub, as the library `datasets` reads them."""

import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from transcoders.config import HubDataset
from transcoders.errors import UserError
from transcoders.progress import progress_bar
from transcoders.short_repr import short_repr
from transcoders.sources import fetch_from_hub, hub_error

FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    ".txt": ("text", {"sample_by": "document", "encoding": "utf-8-sig"}),  # no byte order mark
    ".jsonl": ("json", {}),
    ".json": ("json", {}),
    ".csv": ("csv", {"keep_default_na": False}),  # "NA" and "null" are texts too
    ".parquet": ("parquet", {}),
}
"""By the suffix of a file: the library's name for its type, and the options to read it with."""


def check_formats(names: list[str], key: str) -> None:
    """Refuse files before any is fetched or read.

    Args:
        names: of the files.
        key: the key of the scale file that names them.

    Raises:
        UserError: they are of a type that cannot be read, or of several types.
    """
    for name in names:
        if Path(name).suffix.lower() not in FORMATS:
            raise UserError(
                f"{name}: expected a file of text ({', '.join(FORMATS)}), found another type; "
                f"leave it out of {key}"
            )
    kinds = sorted({FORMATS[Path(name).suffix.lower()][0] for name in names})
    if len(kinds) > 1:
        raise UserError(
            f"{key}: expected files of one type, found {', '.join(kinds)}; keep one type"
        )


def records_of_file(path: Path, name: str) -> Iterator[dict[str, Any]]:
    """Rows of a table, or a text file as the one row ``{"text": …}``, in order.

    Args:
        path: the file. An empty one has no records.
        name: what messages call it.

    Raises:
        UserError: the file cannot be read as the type that its suffix names.
    """
    if not path.is_file():
        raise UserError(f"{name}: expected a file, found none; correct its path in the scale file")
    if not path.stat().st_size:
        return
    kind, options = FORMATS[path.suffix.lower()]
    with tempfile.TemporaryDirectory() as folder:
        # The library may take a path for a pattern or an address, so it gets a plain one.
        link = Path(folder, f"file{path.suffix}")
        link.symlink_to(path.absolute())
        try:  # streaming leaves no copy of the file behind
            yield from _load(kind, data_files=str(link), streaming=True, **options)
        except Exception as error:  # whatever the readers of four formats raise
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise UserError(
                f"{name}: expected a {kind} file in UTF-8, found an error ({reason}); mend it, "
                "save it in UTF-8, or leave it out"
            ) from None


def records_of_hub(source: HubDataset) -> Iterator[dict[str, Any]]:
    """Rows of one split of a dataset, in order; only the first ``source.documents`` if that is set.

    Raises:
        UserError: the hub fails in any of the ways of :func:`fetch_from_hub`, or the dataset has no
            such configuration or split, or cannot be read.
    """
    # `datasets` hides why the hub refuses something. This asks first, and checks what is pinned.
    fetch_from_hub(source, ["README*", *source.sha256])
    total = source.documents
    where: dict[str, Any] = {
        "split": source.split,
        "revision": source.revision,
        "streaming": total is not None,
    }
    try:
        records = _load(source.repo, source.config, **where)
        with progress_bar(total, "reading documents", "doc") as bar:
            for record in islice(records, total):
                yield record
                bar.update()
    except Exception as error:  # whatever the libraries underneath raise
        part = f"{source.config}, " if source.config else ""
        advice = "correct `config` or `split` in the scale file"
        raise hub_error(error, source, f"{part}split {source.split}", advice) from None


def text_of(record: dict[str, Any], column: str, name: str) -> str:
    """The text of a record; empty where it has none.

    Args:
        record: one row.
        column: where the text is.
        name: what messages call the file.

    Raises:
        UserError: there is no such column, or it holds something other than text.
    """
    text = record.get(column)
    if column not in record or not isinstance(text, str | None):
        found = short_repr(text) if column in record else f"the columns {', '.join(record)}"
        raise UserError(
            f"{name}: expected text in the column `{column}`, found {found}; "
            "correct text_column in the scale file"
        )
    return text or ""


def _load(*what: str | None, split: str = "train", **options: Any) -> Iterator[dict[str, Any]]:
    """Rows as the library reads them, without output, and with a cache that is deleted.

    The library would count each reading by asking a server, even for files on this machine; that is
    turned off.
    """
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False
    with tempfile.TemporaryDirectory() as cache:
        yield from datasets.load_dataset(*what, split=split, cache_dir=cache, **options)
