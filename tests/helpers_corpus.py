"""Small corpora for tests."""

from transcoders.config import Corpus


def corpus_of(source, **changes):
    """Rows of 8 tokens, with two documents held out, unless ``changes`` say otherwise."""
    values = {
        "source": source, "context_length": 8, "pack_documents": "all", "train_positions": "all",
        "metric_positions": "all", "train_contexts": 10, "eval_documents": 2, "eval_contexts": 2,
    }  # fmt: skip
    return Corpus.model_validate(values | changes)
