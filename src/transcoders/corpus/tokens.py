"""Documents into rows of tokens, and the record of what the corpus is."""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Int
from torch import Tensor

from transcoders.checksums import sha256
from transcoders.config import Corpus, Model
from transcoders.corpus.documents import Split
from transcoders.errors import UserError
from transcoders.files import (
    made_folder,
    read_json,
    read_table,
    read_tensors,
    save_tensors,
    write_json,
)
from transcoders.models import check_context, load_tokenizer
from transcoders.progress import progress_bar


class Rows(NamedTuple):
    """Rows of tokens: BOS and ``context_length - 1`` tokens of text each."""

    tokens: Int[Tensor, "rows position"]
    document: Int[Tensor, " rows"]
    """Position in the corpus manifest of the document that each row begins in."""

    def chosen(self, rows: np.ndarray) -> "Rows":
        """The rows of these numbers, in their order."""
        return Rows(self.tokens[rows], self.document[rows])

    def spread(self, n_rows: int | None) -> "Rows":
        """``n_rows`` of the rows, evenly spaced; all if there are no more, or if it is None."""
        total = len(self.tokens)
        n_rows = total if n_rows is None else min(n_rows, total)
        return self.chosen(np.arange(n_rows) * total // n_rows)


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
        UserError: rows are longer than the model has positions, or the corpus has fewer of them
            than the scale file asks for.
    """
    check_context(model_folder, corpus.context_length)
    tokenizer, table = load_tokenizer(model_folder), read_table(documents)
    wanted_rows: dict[Split, int] = {"train": corpus.train_contexts, "eval": corpus.eval_contexts}
    random = np.random.default_rng(seed)
    with made_folder(destination) as folder:
        counts: dict[str, Any] = {}
        for split, wanted in wanted_rows.items():
            rows = _rows_of(table, split, tokenizer, model.bos_token, corpus)
            available = len(rows.tokens)
            if available < wanted:
                packed = corpus.pack_documents in ("all", split)
                raise UserError(
                    f"corpus.{split}_contexts is {wanted} rows of {corpus.context_length} tokens, "
                    f"but the {split} documents give only {available}; lower it, or add text"
                    + ("" if packed else ", or let rows span documents (pack_documents: all)")
                )
            chosen = (
                random.permutation(available)[:wanted]
                if split == "train"
                else _spread(rows, wanted, random)
            )
            kept = rows.chosen(chosen)
            save_tensors(folder / f"{split}.safetensors", kept._asdict())
            counts[split] = {
                "rows": wanted,
                "tokens": wanted * corpus.context_length,
                "rows_available": available,
                "documents": kept.document.unique().numel(),
                "sha256": sha256(folder / f"{split}.safetensors"),
            }
        write_json(folder / "tokens.json", counts)


def held_out_rows(
    documents: Path, corpus: Corpus, model: Model, model_folder: Path, wanted: int, *, seed: int
) -> Rows:
    """Rows of the held-out documents, spread evenly over them: more than the evaluation measures.

    Args:
        documents: that ``fetch_corpus`` wrote.
        corpus: says how documents become rows.
        model: its BOS token.
        model_folder: its tokenizer.
        wanted: how many; fewer if there are not that many.
        seed: of the choice within documents.
    """
    tokenizer, table = load_tokenizer(model_folder), read_table(documents)
    rows = _rows_of(table, "eval", tokenizer, model.bos_token, corpus)
    return rows.chosen(_spread(rows, wanted, np.random.default_rng(seed)))


def _rows_of(table: pd.DataFrame, split: Split, tokenizer: Any, bos: str, corpus: Corpus) -> Rows:
    """All full rows of the documents of one split, in order."""
    first = tokenizer.convert_tokens_to_ids(bos)
    table = table[table["split"] == split]
    length = corpus.context_length - 1
    rows = [np.empty((0, corpus.context_length), np.int32)]
    document_of_row = [np.empty(0, np.int32)]
    pending = np.empty((0, 2), np.int32)  # tokens that fill no row yet, each with its document
    packs = corpus.pack_documents in ("all", split)
    source_before = ""
    with progress_bar(len(table), f"tokenizing {split} documents", "doc") as bar:
        for index, source, text in table[["source", "text"]].itertuples(name=None):
            tokens = tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids
            own = np.array([tokens, [index] * len(tokens)], np.int32).T
            continues = packs and source == source_before
            pending = np.concatenate([pending, own]) if continues else own
            source_before = source
            n_full = len(pending) // length
            full = pending[: n_full * length].reshape(n_full, length, 2)
            rows.append(np.insert(full[..., 0], 0, first, axis=1))
            document_of_row.append(full[:, 0, 1].copy())
            pending = pending[n_full * length :]
            bar.update()
    found = np.concatenate(rows), np.concatenate(document_of_row)
    return Rows(*map(torch.from_numpy, found))


def _spread(rows: Rows, wanted: int, random: np.random.Generator) -> np.ndarray:
    """Rows taken in turn from every document, at random within each; in the order of documents."""
    document = rows.document.numpy()
    shuffled = random.permutation(len(document))
    turn = pd.Series(document[shuffled]).groupby(document[shuffled]).cumcount().to_numpy()
    by_turn = shuffled[np.argsort(turn, kind="stable")]
    return np.sort(by_turn[:wanted])


def load_rows(folder: Path, split: Split) -> Rows:
    """Rows that :func:`tokenize_corpus` wrote, checked against their recorded SHA-256.

    Raises:
        UserError: the file is missing, or was changed or cut short since it was written.
    """
    expected = read_json(folder / "tokens.json")[split]["sha256"]
    remedy = f"delete the folder {folder} and run again"
    path = folder / f"{split}.safetensors"
    return Rows(**read_tensors(path, sha256=expected, remedy=remedy))


def write_manifest(
    documents: Path, corpus: Corpus, token_folders: dict[str, Path], destination: Path
) -> None:
    """Record what the corpus is: every document with its split and hash, every token file.

    Raises:
        UserError: a document is in both splits of some model's rows.
    """
    table = read_table(documents)
    models = {}
    for model, folder in token_folders.items():
        train, held_out = (
            set(load_rows(folder, split).document.tolist()) for split in ("train", "eval")
        )
        if shared := sorted(train & held_out):
            ids = ", ".join(table["id"][shared])
            raise UserError(f"{folder}: documents {ids} feed both training and evaluation")
        models[model] = read_json(folder / "tokens.json")
    columns = table[["id", "source", "title", "split", "characters"]]
    hashes = [hashlib.sha256(text.encode()).hexdigest() for text in table["text"]]
    listed = columns.assign(sha256=hashes).to_dict("records")
    digest = hashlib.sha256(repr(listed).encode()).hexdigest()
    record = {
        "source": [source.model_dump() for source in corpus.source],
        "documents_by_source": {
            source: splits.value_counts().sort_index().to_dict()
            for source, splits in table.groupby("source")["split"]
        },
        "models": models,
        # Millions of documents do not belong in a committed file: one hash stands for the list.
        "documents": listed if len(listed) <= 1000 else {"count": len(listed), "sha256": digest},
    }
    write_json(destination, record)
