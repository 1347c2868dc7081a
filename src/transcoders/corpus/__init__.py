"""Text into documents, documents into rows of tokens, split by document."""

from transcoders.corpus.documents import fetch_corpus
from transcoders.corpus.readers import check_text_files
from transcoders.corpus.tokens import (
    Rows,
    held_out_rows,
    load_rows,
    tokenize_corpus,
    write_manifest,
)

__all__ = [
    "Rows",
    "check_text_files",
    "fetch_corpus",
    "held_out_rows",
    "load_rows",
    "tokenize_corpus",
    "write_manifest",
]
