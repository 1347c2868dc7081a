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
from pydantic import ValidationError

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


@pytest.mark.parametrize(
    ("lengths", "changes", "advice", "taken"),
    [
        ([100] * 50, {"eval_contexts": 40}, "lower eval_contexts to 8", {"eval_contexts": 8}),
        ([40] * 2000, {}, "join short .* or lower context_length to 6", {"context_length": 6}),
        ([500] * 3, {}, "add documents, or lower eval_documents", {"eval_documents": 3}),
    ],
)
def test_what_is_advised_for_too_few_long_documents_helps(lengths, changes, advice, taken):
    short = documents_of(lengths)
    corpus = synthetic(**{"eval_contexts": 4} | changes)
    said = rf"eval_documents is 4 .* but only \d+ of its {len(lengths)} documents .*; {advice}"
    with pytest.raises(UserError, match=said):
        assign_splits(short, corpus, seed=0)
    splits = assign_splits(short, corpus.model_copy(update=taken), seed=0)
    assert (splits == "eval").sum() == taken.get("eval_documents", 4)


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


def test_sources_of_one_name_are_refused(texts):
    both = [{"type": "files", "path": str(texts), "license": "none"}] * 2
    with pytest.raises(ValidationError, match="a name of its own for every source"):
        small_corpus(both)


@pytest.mark.parametrize("eval_contexts", [4, 10, 12])
def test_evaluation_rows_are_spread_evenly_and_training_rows_drawn_from_everywhere(
    texts, model_folder, tmp_path, eval_contexts
):
    corpus = of_files(texts, eval_contexts=eval_contexts, train_contexts=100)
    folder = tokenize(corpus, model_folder, tmp_path)
    counts = load_rows(folder, "eval").document.unique(return_counts=True)[1]
    assert len(counts) == 4 and counts.sum() == eval_contexts
    assert counts.max() - counts.min() <= 1
    document = load_rows(folder, "train").document
    assert len(document.unique()) == 16
    assert document.tolist() != sorted(document.tolist())


@pytest.mark.parametrize("split", ["train", "eval"])
def test_more_rows_than_there_are_is_refused_by_key(texts, model_folder, tmp_path, split):
    corpus = of_files(texts)
    fetch_corpus(corpus, tmp_path / "documents.parquet", seed=0)
    greedy = corpus.model_copy(update={f"{split}_contexts": 5000})
    said = rf"corpus\.{split}_contexts is 5000 rows of 8 tokens.*lower it.*pack_documents: all"
    with pytest.raises(UserError, match=said):
        tokenize_corpus(
            tmp_path / "documents.parquet", greedy, MODEL, model_folder, tmp_path / "t", seed=0
        )
    assert not (tmp_path / "t").exists()


@pytest.mark.parametrize("source", ["synthetic", "files"])
def test_the_same_seed_gives_the_same_bytes_and_another_does_not(
    texts, model_folder, tmp_path, source
):
    corpus = synthetic() if source == "synthetic" else of_files(texts)
    for name, seed in (("first", 3), ("again", 3), ("other", 4)):
        tokenize(corpus, model_folder, tmp_path / name, seed)
    first, again, other = (hashes_below(tmp_path / name) for name in ("first", "again", "other"))
    assert first == again and first.keys() == other.keys()
    assert not set(first.values()) & set(other.values())


@pytest.fixture
def tokenized(texts, model_folder, tmp_path):
    return tokenize(of_files(texts), model_folder, tmp_path)


def manifest_of(texts, tokens, folder):
    corpus, destination = of_files(texts), folder / "manifest.json"
    write_manifest(folder / "documents.parquet", corpus, {"tiny": tokens}, destination)
    return json.loads(destination.read_text())


def test_the_manifest_records_every_document_and_token_file(texts, tokenized, tmp_path):
    table = pd.read_parquet(tmp_path / "documents.parquet")
    assert list(table) == ["id", "source", "title", "split", "characters", "text"]
    files = {path.stem: path.read_bytes() for path in sorted(texts.glob("*.txt"))}
    assert dict(zip(table["id"], table["text"].str.encode("utf-8"), strict=True)) == files
    assert list(table["id"]) == list(files)
    record = manifest_of(texts, tokenized, tmp_path)
    assert record["documents_by_source"] == {"text": {"eval": 4, "train": 16}}
    hashes = {name: hashlib.sha256(text).hexdigest() for name, text in files.items()}
    assert {one["id"]: one["sha256"] for one in record["documents"]} == hashes
    assert [one["split"] for one in record["documents"]].count("eval") == 4
    assert record["models"] == {"tiny": json.loads((tokenized / "tokens.json").read_text())}


def test_a_document_in_both_splits_is_refused_by_name(texts, tokenized, tmp_path):
    # Evaluation rows among the training rows, with hashes that are right.
    counts = json.loads((tokenized / "tokens.json").read_text())
    shutil.copy(tokenized / "eval.safetensors", tokenized / "train.safetensors")
    counts["train"]["sha256"] = counts["eval"]["sha256"]
    (tokenized / "tokens.json").write_text(json.dumps(counts))
    shared = pd.read_parquet(tmp_path / "documents.parquet").query("split == 'eval'")["id"]
    with pytest.raises(UserError, match="feed both training and evaluation") as caught:
        manifest_of(texts, tokenized, tmp_path)
    assert all(one in str(caught.value) for one in shared)


def test_a_manifest_of_many_documents_holds_one_hash_over_the_list(texts, tokenized, tmp_path):
    table, digests = pd.read_parquet(tmp_path / "documents.parquet"), set()
    for text in ("some text", "some text", "another"):
        more = [{**table.iloc[-1], "id": f"more{n}", "text": text} for n in range(981)]
        longer = pd.concat([table, pd.DataFrame(more)], ignore_index=True)
        longer.to_parquet(tmp_path / "documents.parquet")
        record = manifest_of(texts, tokenized, tmp_path)
        assert record["documents"]["count"] == 1001
        digests.add(record["documents"]["sha256"])
    assert len(digests) == 2


ARTICLE = """{{Infobox animal | name = Dog | image = hound.png }}
'''Dogs''' are [[domestication|domesticated]] [[animal]]s.<ref name="a">A note {{cite}}</ref>
They ({{IPA|dɒg}}) ''bark''.<ref name="a" />
[[File:Dog.jpg|thumb|A [[puppy]] in a picture]]
[[Image:Old.jpg|left]] <gallery>
Third.jpg|in a gallery
</gallery>
{| class="wikitable"
! heading of a table
|-
| cell of a table
|}
== History ==
They have a [http://example.org long] history.<!-- a comment -->

=== Early ===
* first item
[[Category:Pets]]
[[de:Haushund]]
"""
PROSE = """Dogs are domesticated animals.
They bark.
History
They have a long history.
Early
first item"""


@pytest.mark.parametrize(
    ("wikitext", "text"),
    [
        (ARTICLE, PROSE),
        ("Prose.\n\n== References ==\n{{reflist}}\n* [[A link]]\n\n==Last==\nX", "Prose."),
        ("Prose.\nReferences stay.\n\nNotes on it.", "Prose.\nReferences stay.\nNotes on it."),
        ("[[Batman: Year One]] is a comic.", "Batman: Year One is a comic."),
        ("Prose.\n{{unclosed", "Prose.\n{{unclosed"),
        ("Prose.\n<ref>unclosed", "Prose.\n<ref>unclosed"),
    ],
)  # fmt: skip
def test_an_article_becomes_its_prose(wikitext, text):
    assert clean_wikitext(wikitext) == text


def test_a_dump_gives_articles_and_neither_redirects_nor_talk(tmp_path):
    def page(number, namespace, title, text, more=""):
        return (
            f"<page><title>{title}</title><ns>{namespace}</ns><id>{number}</id>{more}<revision>"
            f"<id>{number + 900}</id><contributor><username>someone</username><id>7</id>"
            f"</contributor><text>{text}</text></revision></page>"
        )

    xml = (
        '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/"><siteinfo/>'
        + page(12, 0, "Anarchism", "'''Anarchism''' is &lt;b&gt;bold&lt;/b&gt;.")
        + page(13, 0, "Anarchy", "#REDIRECT [[Anarchism]]", '<redirect title="Anarchism" />')
        + page(14, 1, "Talk:Anarchism", "I disagree.")
        + page(15, 10, "Template:Box", "{{box}}")
        + page(16, 0, "Empty", "")
        + page(25, 0, "Autism", "Second [[article]].")
        + "</mediawiki>"
    )
    (tmp_path / "dump.xml.bz2").write_bytes(bz2.compress(xml.encode()))
    assert list(read_mediawiki(tmp_path / "dump.xml.bz2")) == [
        Document("12", "Anarchism", "Anarchism is bold."),
        Document("16", "Empty", ""),
        Document("25", "Autism", "Second article."),
    ]


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
def test_a_text_that_tokenizers_would_never_finish_is_refused_by_name(texts, tmp_path, sign, found):
    folder = tmp_path / "texts"
    shutil.copytree(texts, folder)
    start, end = ("A table:", "end") if sign.isspace() else ("A line: ", " end")
    endless = folder / "Zahlen (2).txt"
    endless.write_text(start + sign * (LONGEST_RUN + 1) + end)
    with pytest.raises(UserError) as caught:
        fetch_corpus(of_files(folder), tmp_path / "documents.parquet", seed=0)
    assert str(caught.value) == (
        f"document Zahlen (2) of the source text: expected at most 500,000 {found} in a row, the "
        "most that tokenizers take in, found 500,001 from character 8 on; shorten them in the "
        "text, or leave the document out"
    )
    assert not (tmp_path / "documents.parquet").exists()
    endless.write_text(start + sign * LONGEST_RUN + end)
    fetch_corpus(of_files(folder), tmp_path / "documents.parquet", seed=0)


def test_rows_can_be_taken_at_even_distances():
    rows = Rows(torch.arange(14).view(7, 2), torch.arange(7))
    assert rows.spread(3).document.tolist() == [0, 2, 4]
    assert torch.equal(rows.spread(3).tokens, rows.tokens[[0, 2, 4]])
    assert all(torch.equal(a, b) for a, b in zip(rows.spread(9), rows, strict=True))
    documents = torch.arange(34).repeat_interleave(8)  # 8 rows of each
    assert len(Rows(documents[:, None], documents).spread(16).document.unique()) == 16
