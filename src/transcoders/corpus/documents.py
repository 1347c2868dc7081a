"""Text into documents: fetched, cleaned, and split.

No document feeds both training and evaluation: whole documents are held out, chosen by a hash of
their identifier and the seed, so the choice depends on neither their order nor the model.
"""

import hashlib
import re
from pathlib import Path
from typing import Literal

import pandas as pd

from transcoders.config import Corpus
from transcoders.corpus.readers import read_sources
from transcoders.errors import UserError
from transcoders.files import check_disk, made_path

Split = Literal["train", "eval"]
CHARACTERS_PER_TOKEN = 6
"""More than tokenizers need for English prose (4 to 5). So a document with this many characters for
each token that is wanted of it has enough tokens."""

LONGEST_RUN = 500_000
"""The most characters in a row that are all white space, or all something else. On five million
spaces, the pattern with which Qwen 2 and Llama 3 split a text gives up after ten million steps and
begins again one character further on. This never ends. It splits half a million characters of any
kind in one go. Other patterns take more steps for a character."""


def fetch_corpus(corpus: Corpus, destination: Path, *, seed: int) -> None:
    """Write the documents of a corpus, cleaned and split, as a Parquet table.

    Columns: ``id, source, title, split, characters, text``, sorted by ``id``.

    Raises:
        UserError: the source cannot be reached or read, or differs from what is pinned; two
            documents have the same identifier; one has too many spaces in a row, or too many
            characters without a space; or too few are long enough to be held out.
    """
    table = read_sources(corpus.source, seed=seed)
    table["characters"] = table["text"].str.len()
    check_runs(table)
    table["split"] = assign_splits(table, corpus, seed=seed)
    table = table.dropna(subset="split")[["id", "source", "title", "split", "characters", "text"]]
    check_disk(destination.parent, int(table["characters"].sum()) * 2, "the corpus")
    with made_path(destination) as temporary:
        table.to_parquet(temporary, index=False)


def check_runs(table: pd.DataFrame) -> None:
    """Check that a tokenizer will reach the end of every document.

    Raises:
        UserError: one has more than :data:`LONGEST_RUN` characters in a row that are all white
            space, or all something else.
    """
    long = table[table["characters"] > LONGEST_RUN]
    for _, identifier, source, text in long[["id", "source", "text"]].itertuples(name=None):
        for run in re.finditer(r"\s+|\S+", text):
            if len(run[0]) > LONGEST_RUN:
                found = "spaces" if run[0].isspace() else "characters without a space"
                raise UserError(
                    f"document {identifier} of the source {source}: expected at most "
                    f"{LONGEST_RUN:,} {found} in a row, the most that tokenizers take in, found "
                    f"{len(run[0]):,} from character {run.start():,} on; shorten them in the "
                    "text, or leave the document out"
                )


def assign_splits(table: pd.DataFrame, corpus: Corpus, *, seed: int) -> pd.Series:
    """Hold out ``corpus.eval_documents`` whole documents, the same number of each source.

    If the number cannot be divided evenly, the first sources give one more. Documents too short to
    give their share of ``corpus.eval_contexts`` are never held out. Where some documents of a
    source are for evaluation only, the held-out ones are chosen among these, and the rest of these
    is not used (None).

    Args:
        table: columns ``id, source, characters, eval_only``, one row for each document.
        corpus: how many to hold out, and what they must give.
        seed: of the choice.

    Raises:
        UserError: too few documents of a source are long enough.
    """
    contexts_each = -(-corpus.eval_contexts // corpus.eval_documents)
    enough = contexts_each * corpus.context_length * CHARACTERS_PER_TOKEN
    splits = table["eval_only"].map({False: "train", True: None})
    for number, source in enumerate(corpus.source):
        wanted = len(range(number, corpus.eval_documents, len(corpus.source)))
        own = table[table["source"] == source.name]
        candidates = own[own["eval_only"] == own["eval_only"].any()]
        eligible = candidates["id"][candidates["characters"] >= enough]
        if len(eligible) < wanted:
            longest = candidates["characters"].nlargest(wanted).tolist()
            raise UserError(
                f"corpus.eval_documents is {corpus.eval_documents} with {contexts_each} contexts "
                f"each, {wanted} of them from the source {source.name}, but only {len(eligible)} "
                f"of its {len(own)} documents have the {enough} characters for that; "
                + _what_would_fit(corpus, longest, wanted)
            )
        order = eligible.map(lambda id: hashlib.sha256(f"{seed}:{id}".encode()).hexdigest())
        splits[order.sort_values().index[:wanted]] = "eval"
    return splits


def _what_would_fit(corpus: Corpus, longest: list[int], wanted: int) -> str:
    """What to change so that the ``wanted`` documents of these lengths can be held out."""
    if len(longest) < wanted:
        return "add documents, or lower eval_documents"
    tokens = longest[-1] // CHARACTERS_PER_TOKEN
    if rows := tokens // corpus.context_length:
        return f"lower eval_contexts to {rows * corpus.eval_documents}"
    shorter = f", or lower context_length to {tokens}" if tokens > 1 else ""
    return f"join short texts into longer documents{shorter}"
