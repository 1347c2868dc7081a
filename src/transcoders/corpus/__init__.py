"""Text into documents, documents into rows of tokens, split by document."""

from transcoders.corpus.documents import fetch_corpus as fetch_corpus
from transcoders.corpus.readers import check_text_files as check_text_files
from transcoders.corpus.tokens import Rows as Rows
from transcoders.corpus.tokens import held_out_rows as held_out_rows
from transcoders.corpus.tokens import load_rows as load_rows
from transcoders.corpus.tokens import tokenize_corpus as tokenize_corpus
from transcoders.corpus.tokens import write_manifest as write_manifest
