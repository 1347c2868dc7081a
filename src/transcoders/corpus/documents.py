"""Text into documents: fetched, cleaned, and split.

No document feeds both training and evaluation: whole documents are held out, chosen by a hash of
their identifier and the seed, so the choice depends on neither their order nor the model.
"""

import hashlib
from itertools import pairwise
from pathlib import Path
from typing import Literal

import pandas as pd

from transcoders.config import Corpus
from transcoders.corpus.readers import Document, read_source
from transcoders.errors import UserError
from transcoders.files import check_disk, made_path

Split = Literal["train", "eval"]
CHARACTERS_PER_TOKEN = 8
"""More than any tokenizer needs on the texts here. So a document with this many characters for each
token that is wanted of it has enough tokens."""


def fetch_corpus(corpus: Corpus, destination: Path, *, seed: int) -> None:
    """Write the documents of a corpus, cleaned and split, as a Parquet table.

    Columns: ``id, source, title, split, characters, text``, sorted by ``id``.

    Raises:
        UserError: the source cannot be reached or read, or differs from what is pinned; two
            documents have the same identifier; or too few are long enough to be held out.
    """
    documents = sorted(read_source(corpus.source, seed=seed), key=lambda document: document.id)
    for one, other in pairwise(documents):
        if one.id == other.id:
            raise UserError(
                f"corpus.source: expected an identifier of its own for every document, found "
                f"{one.id} twice; list a file once, or choose another id_column"
            )
    table = pd.DataFrame(documents, columns=list(Document._fields))
    table["characters"] = table["text"].str.len()
    table["split"] = assign_splits(documents, corpus, seed=seed)
    table["source"] = corpus.source.type
    table = table.dropna(subset="split")[["id", "source", "title", "split", "characters", "text"]]
    check_disk(destination.parent, int(table["characters"].sum()) * 2, "the corpus")
    with made_path(destination) as temporary:
        table.to_parquet(temporary, index=False)


def assign_splits(documents: list[Document], corpus: Corpus, *, seed: int) -> list[Split | None]:
    """Hold out ``corpus.eval_documents`` whole documents.

    Documents too short to give their share of ``corpus.eval_contexts`` are never held out. Where
    some documents are for evaluation only, the held-out ones are chosen among these, and the rest
    of these is not used (None).

    Raises:
        UserError: too few documents are long enough.
    """
    contexts_each = -(-corpus.eval_contexts // corpus.eval_documents)
    enough = contexts_each * corpus.context_length * CHARACTERS_PER_TOKEN
    apart = any(one.eval_only for one in documents)
    eligible = [one.id for one in documents if len(one.text) >= enough and one.eval_only == apart]
    if len(eligible) < corpus.eval_documents:
        raise UserError(
            f"corpus.eval_documents is {corpus.eval_documents} with {contexts_each} contexts each, "
            f"but only {len(eligible)} of {len(documents)} documents have the {enough} characters "
            "for that; lower eval_documents or eval_contexts"
        )
    eligible.sort(key=lambda id: hashlib.sha256(f"{seed}:{id}".encode()).hexdigest())
    held_out = set(eligible[: corpus.eval_documents])
    return [
        "eval" if document.id in held_out else None if document.eval_only else "train"
        for document in documents
    ]
