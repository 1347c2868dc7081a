"""Text into documents, documents into rows of tokens, split by document."""

from transcoders.corpus.documents import Split, assign_splits, fetch_corpus
from transcoders.corpus.readers import Document, clean_wikitext, read_mediawiki
from transcoders.corpus.tokens import (
    Rows,
    held_out_rows,
    load_rows,
    tokenize_corpus,
    write_manifest,
)

__all__ = [
    "Document",
    "Rows",
    "Split",
    "assign_splits",
    "clean_wikitext",
    "fetch_corpus",
    "held_out_rows",
    "load_rows",
    "read_mediawiki",
    "tokenize_corpus",
    "write_manifest",
]
