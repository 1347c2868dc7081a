"""Text into rows of tokens: split by document, BOS and text only, the same bytes each time."""

import bz2
import hashlib
import json
import shutil
from itertools import chain

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers_corpus import corpus_of
from helpers_models import byte_tokenizer, tiny_section
from transcoders.corpus import Rows, fetch_corpus, load_rows, tokenize_corpus, write_manifest
from transcoders.corpus.documents import LONGEST_RUN, assign_splits
from transcoders.corpus.readers import Document, clean_wikitext, read_mediawiki
from transcoders.errors import UserError
from workflow.running import hashes_below

torch.set_num_threads(1)
CONTEXT_LENGTH = 8
WORDS_OF_A_DOCUMENT = 10
"""Each document below has this many words of its own, so a token tells its document."""


def small_corpus(source, **changes):
    values = {
        "pack_documents": "none", "train_positions": "without_bos", "train_contexts": 30,
        "metric_positions": "without_bos", "eval_documents": 4, "eval_contexts": 10,
    }  # fmt: skip
    return corpus_of(source, **values | changes)


def synthetic(**changes):
    source = {"type": "synthetic", "documents": 12, "words_per_document": 100, "license": "none"}
    return small_corpus(source, **changes)


MODEL = tiny_section(type="synthetic", architecture="gpt2")


@pytest.fixture(scope="module")
def model_folder(tiny_models):
    """A model whose tokenizer has ids 0 (BOS), 1 (unknown) and i + 2 for the word ``w<i>``."""
    return tiny_models["gpt2"]


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """20 text files of different lengths, no two of which share a word."""
    folder = tmp_path_factory.mktemp("texts")
    random = np.random.default_rng(0)
    for number in range(20):
        words = random.integers(WORDS_OF_A_DOCUMENT, size=45 + 6 * number)
        text = " ".join(f"w{WORDS_OF_A_DOCUMENT * number + word}" for word in words)
        (folder / f"text{number:02d}.txt").write_text(text)
    return folder


def of_files(texts, **changes):
    # 10 rows of 8 tokens from 4 documents: 3 rows, hence 192 characters, of each.
    return small_corpus({"type": "files", "path": str(texts), "license": "none"}, **changes)


def tokenize(corpus, model_folder, folder, seed=0):
    """Fetch and tokenize a corpus; the folder with its rows."""
    fetch_corpus(corpus, folder / "documents.parquet", seed=seed)
    destination = folder / "tokens"
    tokenize_corpus(
        folder / "documents.parquet", corpus, MODEL, model_folder, destination, seed=seed
    )
    return destination


def documents_of(lengths):
    """A table of documents of these lengths."""
    ids = [f"id{number}" for number in range(len(lengths))]
    return pd.DataFrame({"id": ids, "characters": lengths, "eval_only": False, "source": "text"})


DOCUMENTS = documents_of(range(0, 1500, 50))


@given(seed=st.integers(0, 2**63), order=st.permutations(range(len(DOCUMENTS))))
@settings(max_examples=50, deadline=None)
def test_long_enough_documents_are_held_out_whatever_their_order(seed, order):
    corpus = synthetic(eval_documents=4, eval_contexts=12)
    splits = assign_splits(DOCUMENTS, corpus, seed=seed)
    held_out = DOCUMENTS[splits == "eval"]
    assert len(held_out) == 4
    assert held_out["characters"].min() >= 3 * CONTEXT_LENGTH
    # Neither the order nor a document that is not held out changes which ones are.
    others = DOCUMENTS.loc[order].drop(splits.tolist().index("train"))
    assert assign_splits(others, corpus, seed=seed).equals(splits[others.index])


def test_what_is_advised_for_too_few_long_documents_helps():
    short, corpus = documents_of([100] * 50), synthetic(eval_contexts=40)
    said = r"eval_documents is 4 .* only 0 of its 50 .*; lower eval_contexts to 8"
    with pytest.raises(UserError, match=said):
        assign_splits(short, corpus, seed=0)
    splits = assign_splits(short, corpus.model_copy(update={"eval_contexts": 8}), seed=0)
    assert (splits == "eval").sum() == 4


def test_where_documents_are_only_for_evaluation_those_are_held_out_and_the_rest_not_used():
    corpus = synthetic(eval_documents=4, eval_contexts=12)
    apart = DOCUMENTS.assign(id="apart-" + DOCUMENTS["id"], eval_only=True)
    splits = assign_splits(pd.concat([DOCUMENTS, apart], ignore_index=True), corpus, seed=0)
    assert (splits[: len(DOCUMENTS)] == "train").all()
    assert splits[len(DOCUMENTS) :].value_counts().to_dict() == {"eval": 4}


@pytest.mark.parametrize(("pack", "seed"), [("all", 0), ("train", 1), ("none", 2)])
def test_rows_are_bos_and_each_document_or_the_stream_of_all_cut_up(
    texts, model_folder, tmp_path, pack, seed
):
    folder = tokenize(of_files(texts, pack_documents=pack), model_folder, tmp_path, seed)
    table = pd.read_parquet(tmp_path / "documents.parquet")
    recorded, length = json.loads((folder / "tokens.json").read_text()), CONTEXT_LENGTH - 1
    for split in ("train", "eval"):
        documents = [
            [(int(word[1:]) + 2, index) for word in text.split()]
            for index, text in table[table["split"] == split]["text"].items()
        ]
        streams = [list(chain(*documents))] if pack in ("all", split) else documents
        document_of = {
            (0, *(token for token, _ in stream[i : i + length])): stream[i][1]
            for stream in streams
            for i in range(0, len(stream) - length + 1, length)
        }
        tokens, document = load_rows(folder, split)
        assert [document_of[tuple(row)] for row in tokens.tolist()] == document.tolist()
        assert len(tokens.unique(dim=0)) == len(tokens)
        content = (folder / f"{split}.safetensors").read_bytes()
        assert recorded[split] == {
            "rows": len(document), "tokens": tokens.numel(), "rows_available": len(document_of),
            "documents": len(document.unique()), "sha256": hashlib.sha256(content).hexdigest(),
        }  # fmt: skip


def test_several_sources_are_named_held_out_alike_and_never_share_a_row(
    texts, model_folder, tmp_path
):
    listed = sorted(texts.iterdir())
    halves = [
        {"type": "files", "name": name, "path": list(map(str, half)), "license": "none"}
        for name, half in (("first", listed[::2]), ("second", listed[1::2]))
    ]
    corpus = small_corpus(halves, pack_documents="all")
    folder = tokenize(corpus, model_folder, tmp_path, 0)
    table = pd.read_parquet(tmp_path / "documents.parquet")
    assert table["id"].str.partition("/")[0].equals(table["source"])
    held_out = table[table["split"] == "eval"]["source"].value_counts()
    assert held_out.to_dict() == {"first": 2, "second": 2}
    source = dict(zip(table["title"].str[4:].astype(int), table["source"], strict=True))
    for split in ("train", "eval"):
        # The documents, by the words they own, that the tokens of each row come from.
        for row in (load_rows(folder, split).tokens[:, 1:] - 2) // WORDS_OF_A_DOCUMENT:
            assert len({source[document] for document in row.tolist()}) == 1


def test_evaluation_rows_are_spread_evenly_and_training_rows_drawn_from_everywhere(
    texts, model_folder, tmp_path
):
    folder = tokenize(of_files(texts, train_contexts=100), model_folder, tmp_path)
    counts = load_rows(folder, "eval").document.unique(return_counts=True)[1]
    assert sorted(counts.tolist()) == [2, 2, 3, 3]
    document = load_rows(folder, "train").document
    assert len(document.unique()) == 16
    assert document.tolist() != sorted(document.tolist())


def test_more_rows_than_there_are_is_refused_by_key(texts, model_folder, tmp_path):
    said = r"corpus\.train_contexts is 5000 rows of 8 tokens.*lower it.*pack_documents: all"
    with pytest.raises(UserError, match=said):
        tokenize(of_files(texts, train_contexts=5000), model_folder, tmp_path)
    assert not (tmp_path / "tokens").exists()


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(model_folder, tmp_path):
    for name, seed in (("first", 3), ("again", 3), ("other", 4)):
        tokenize(synthetic(), model_folder, tmp_path / name, seed)
    first, again, other = (hashes_below(tmp_path / name) for name in ("first", "again", "other"))
    assert first == again and first.keys() == other.keys()
    assert not set(first.values()) & set(other.values())


def test_the_manifest_records_documents_and_tokens_and_none_may_be_in_both_splits(
    texts, model_folder, tmp_path
):
    corpus, documents = of_files(texts), tmp_path / "documents.parquet"
    tokens, manifest = tokenize(corpus, model_folder, tmp_path), tmp_path / "manifest.json"
    write_manifest(documents, corpus, {"tiny": tokens}, manifest)
    record = json.loads(manifest.read_text())
    counts = json.loads((tokens / "tokens.json").read_text())
    assert record["documents_by_source"] == {"text": {"eval": 4, "train": 16}}
    assert record["models"] == {"tiny": counts}
    hashes = {one.stem: hashlib.sha256(one.read_bytes()).hexdigest() for one in texts.iterdir()}
    assert {one["id"]: one["sha256"] for one in record["documents"]} == hashes
    # Evaluation rows among the training rows, with hashes that are right.
    shutil.copy(tokens / "eval.safetensors", tokens / "train.safetensors")
    counts["train"]["sha256"] = counts["eval"]["sha256"]
    (tokens / "tokens.json").write_text(json.dumps(counts))
    shared = ", ".join(one["id"] for one in record["documents"] if one["split"] == "eval")
    with pytest.raises(UserError, match=f"documents {shared} feed both training and evaluation"):
        write_manifest(documents, corpus, {"tiny": tokens}, manifest)


def test_a_manifest_of_many_documents_holds_one_hash_over_the_list(texts, tmp_path):
    table = documents_of([9] * 1001).assign(title="", split="train", text="some text")
    table.to_parquet(tmp_path / "documents.parquet")
    write_manifest(tmp_path / "documents.parquet", of_files(texts), {}, tmp_path / "list.json")
    record = json.loads((tmp_path / "list.json").read_text())["documents"]
    assert record["count"] == 1001 and len(record["sha256"]) == 64


ARTICLE = """{{Infobox animal | name = Dog | image = hound.png }}
'''Dogs''' are [[domestication|domesticated]] [[animal]]s.<ref name="a">A note {{cite}}</ref>
They ({{IPA|dɒg}}) ''bark''.<ref name="a" />
[[File:Dog.jpg|thumb|A [[puppy]] in a picture]]
<gallery>Third.jpg|in a gallery</gallery>
{| class="wikitable"
| cell of a table
|}
== History ==
They have a [http://example.org long] history.<!-- a comment -->
* first item
[[Category:Pets]] [[de:Haushund]]
"""
PROSE = "Dogs are domesticated animals.\nThey bark.\nHistory\nThey have a long history.\nfirst item"


@pytest.mark.parametrize(
    ("wikitext", "text"),
    [
        (ARTICLE, PROSE),
        ("Prose.\n\n== References ==\n{{reflist}}\n* [[A link]]\n\n==Last==\nX", "Prose."),
        ("Prose.\nReferences stay.\n\nNotes on it.", "Prose.\nReferences stay.\nNotes on it."),
        ("[[Batman: Year One]] is a comic.", "Batman: Year One is a comic."),
        ("Prose.\n<ref>unclosed", "Prose.\n<ref>unclosed"),
    ],
)  # fmt: skip
def test_an_article_becomes_its_prose(wikitext, text):
    assert clean_wikitext(wikitext) == text


def test_a_dump_gives_articles_and_neither_redirects_nor_talk(tmp_path):
    def page(number, namespace, title, text, more=""):
        return (
            f"<page><title>{title}</title><ns>{namespace}</ns><id>{number}</id>{more}<revision>"
            f"<id>900</id><contributor><id>7</id></contributor><text>{text}</text></revision></page>"
        )

    pages = [
        page(12, 0, "Anarchism", "'''Anarchism''' is &lt;b&gt;bold&lt;/b&gt;."),
        page(13, 0, "Anarchy", "#REDIRECT [[Anarchism]]", '<redirect title="Anarchism" />'),
        page(14, 1, "Talk:Anarchism", "I disagree."),
    ]
    xml = f'<mediawiki xmlns="http://www.mediawiki.org/xml/">{"".join(pages)}</mediawiki>'
    (tmp_path / "dump.xml.bz2").write_bytes(bz2.compress(xml.encode()))
    found = list(read_mediawiki(tmp_path / "dump.xml.bz2"))
    assert found == [Document("12", "Anarchism", "Anarchism is bold.")]


def test_a_special_token_in_a_text_is_text_like_any_other(tmp_path):
    tokenizer = byte_tokenizer(bos_token="<|endoftext|>")
    tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "model/config.json").write_text('{"model_type": "gpt2"}')
    text = "Not the <|endoftext|> of a text. "
    (tmp_path / "texts").mkdir()
    for number in range(6):
        (tmp_path / "texts" / f"{number}.txt").write_text(text * 40)
    corpus = of_files(tmp_path / "texts", train_contexts=20, eval_documents=2, eval_contexts=2)
    rows = tokenize(corpus, tmp_path / "model", tmp_path)
    for split in ("train", "eval"):
        tokens = load_rows(rows, split).tokens
        bos = tokens == tokenizer.bos_token_id
        assert bos[:, 0].all() and not bos[:, 1:].any()
        assert all(tokenizer.decode(row[1:]) in text * 40 for row in tokens)


@pytest.mark.parametrize(("sign", "found"), [("\n", "spaces"), ("a", "characters without a space")])
def test_a_text_that_tokenizers_would_never_finish_is_refused_by_name(tmp_path, sign, found):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/other.txt").write_text("word " * 20)
    written = tmp_path / "documents.parquet"

    def fetch(length):
        around = "x" if sign.isspace() else " "
        (tmp_path / "texts/Zahlen (2).txt").write_text(around + sign * length + around)
        corpus = of_files(tmp_path / "texts", eval_documents=2, eval_contexts=2)
        fetch_corpus(corpus, written, seed=0)

    with pytest.raises(UserError, match=rf"Zahlen \(2\) of .* at most 500,000 {found} in a row"):
        fetch(LONGEST_RUN + 1)
    assert not written.exists()
    fetch(LONGEST_RUN)


def test_rows_can_be_taken_at_even_distances():
    rows = Rows(torch.arange(14).view(7, 2), torch.arange(7))
    assert rows.spread(3).document.tolist() == [0, 2, 4]
    assert torch.equal(rows.spread(3).tokens, rows.tokens[[0, 2, 4]])
    assert torch.equal(rows.spread(9).tokens, rows.tokens)
