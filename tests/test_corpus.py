"""Text into rows of tokens: split by document, BOS and text only, the same bytes each time."""

import bz2
import hashlib
import json
import shutil
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from transcoders.config import Corpus, Model
from transcoders.corpus import (
    Document,
    assign_splits,
    clean_wikitext,
    fetch_corpus,
    load_rows,
    read_mediawiki,
    tokenize_corpus,
    write_manifest,
)
from transcoders.errors import UserError
from transcoders.models import fetch_model

torch.set_num_threads(1)
REAL_GPT2_TOKENIZER = Path(__file__).resolve().parents[2] / "shared/data/tokenizers/gpt2"
CONTEXT_LENGTH = 8
WORDS_OF_A_DOCUMENT = 10
"""Each document below has this many words of its own, so a token tells its document."""


def corpus_of(source: dict[str, object], **changes: object) -> Corpus:
    values = {
        "source": source,
        "context_length": CONTEXT_LENGTH,
        "pack_documents": False,
        "train_positions": "without_bos",
        "metric_positions": "without_bos",
        "train_contexts": 30,
        "eval_documents": 4,
        "eval_contexts": 10,
    }
    return Corpus.model_validate(values | changes)


def synthetic(**changes: object) -> Corpus:
    source = {"type": "synthetic", "documents": 12, "words_per_document": 100, "license": "none"}
    return corpus_of(source, **changes)


@pytest.fixture(scope="module")
def model() -> Model:
    source = {"type": "synthetic", "architecture": "gpt2", "license": "none"}
    return Model.model_validate(
        {"source": source, "n_layers": 1, "d_model": 32, "bos_token": "<|endoftext|>"}
    )


@pytest.fixture(scope="module")
def model_folder(model, tmp_path_factory) -> Path:
    """A model whose tokenizer has ids 0 (BOS), 1 (unknown) and i + 2 for the word ``w<i>``."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    fetch_model(model, folder, seed=0)
    return folder


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> Path:
    """20 text files of different lengths, no two of which share a word."""
    folder = tmp_path_factory.mktemp("texts")
    random = np.random.default_rng(0)
    for number in range(20):
        words = random.integers(WORDS_OF_A_DOCUMENT, size=45 + 6 * number)
        text = " ".join(f"w{WORDS_OF_A_DOCUMENT * number + word}" for word in words)
        (folder / f"text{number:02d}.txt").write_text(text)
    return folder


def of_files(texts: Path, **changes: object) -> Corpus:
    # 10 rows of 8 tokens from 4 documents: 3 rows, hence 192 characters, of each.
    return corpus_of({"type": "files", "path": str(texts), "license": "none"}, **changes)


def tokenize(corpus: Corpus, model: Model, model_folder: Path, folder: Path, seed: int = 0) -> Path:
    """Fetch and tokenize a corpus; the folder with its rows."""
    fetch_corpus(corpus, folder / "documents.parquet", seed=seed)
    destination = folder / "tokens"
    tokenize_corpus(
        folder / "documents.parquet", corpus, model, model_folder, destination, seed=seed
    )
    return destination


def documents_of_tokens(tokens: torch.Tensor) -> list[set[int]]:
    """The documents, by the words they own, that the tokens of each row come from."""
    return [set(row.tolist()) for row in (tokens[:, 1:] - 2) // WORDS_OF_A_DOCUMENT]


DOCUMENTS = [Document(f"id{number}", "", "x" * (50 * number)) for number in range(30)]


@given(seed=st.integers(0, 2**63))
@settings(max_examples=50, deadline=None)
def test_exactly_the_documents_asked_for_are_held_out_and_each_is_long_enough(seed):
    corpus = synthetic(eval_documents=4, eval_contexts=12)
    splits = assign_splits(DOCUMENTS, corpus, seed=seed)
    held_out = [d for d, split in zip(DOCUMENTS, splits, strict=True) if split == "eval"]
    assert len(splits) == len(DOCUMENTS)
    assert len(held_out) == 4
    assert all(len(document.text) >= 3 * CONTEXT_LENGTH for document in held_out)


@given(seed=st.integers(0, 2**63), order=st.permutations(DOCUMENTS))
@settings(max_examples=50, deadline=None)
def test_the_split_does_not_depend_on_the_order_of_documents(seed, order):
    corpus = synthetic()
    expected = dict(zip(DOCUMENTS, assign_splits(DOCUMENTS, corpus, seed=seed), strict=True))
    assert dict(zip(order, assign_splits(order, corpus, seed=seed), strict=True)) == expected


def test_another_seed_holds_out_other_documents():
    splits = {tuple(assign_splits(DOCUMENTS, synthetic(), seed=seed)) for seed in range(5)}
    assert len(splits) == 5


def test_a_document_that_is_not_held_out_does_not_change_who_is():
    corpus = synthetic()
    splits = assign_splits(DOCUMENTS, corpus, seed=0)
    without = splits.index("train")
    fewer = DOCUMENTS[:without] + DOCUMENTS[without + 1 :]
    assert assign_splits(fewer, corpus, seed=0) == splits[:without] + splits[without + 1 :]


def test_too_few_documents_long_enough_to_hold_out_are_refused():
    short = [Document(str(number), "", "x" * 100) for number in range(50)]
    with pytest.raises(UserError, match=r"corpus\.eval_documents is 4 .* only 0 of 50 documents"):
        assign_splits(short, synthetic(eval_contexts=40), seed=0)


def test_where_documents_are_only_for_evaluation_those_are_held_out_and_the_rest_not_used():
    corpus = synthetic(eval_documents=4, eval_contexts=12)
    apart = [Document(f"apart-{one.id}", "", one.text, eval_only=True) for one in DOCUMENTS]
    splits = assign_splits([*DOCUMENTS, *apart], corpus, seed=0)
    assert set(splits[: len(DOCUMENTS)]) == {"train"}
    assert sorted(splits[len(DOCUMENTS) :], key=str) == [None] * (len(DOCUMENTS) - 4) + ["eval"] * 4


@given(seed=st.integers(0, 2**32))
@settings(max_examples=8, deadline=None)
def test_no_document_feeds_both_training_and_evaluation(
    tmp_path_factory, texts, model, model_folder, seed
):
    folder = tmp_path_factory.mktemp("split")
    rows = tokenize(of_files(texts), model, model_folder, folder, seed)
    train, evaluation = load_rows(rows, "train"), load_rows(rows, "eval")
    assert not set(train.document.tolist()) & set(evaluation.document.tolist())
    used = [set.union(*documents_of_tokens(part.tokens)) for part in (train, evaluation)]
    assert not used[0] & used[1]
    assert len(used[1]) == 4


@pytest.mark.parametrize("pack", [True, False])
def test_rows_are_bos_and_then_text(texts, model, model_folder, tmp_path, pack):
    rows = tokenize(of_files(texts, pack_documents=pack), model, model_folder, tmp_path)
    for split, wanted in (("train", 30), ("eval", 10)):
        tokens = load_rows(rows, split).tokens
        assert tokens.shape == (wanted, CONTEXT_LENGTH)
        assert (tokens[:, 0] == 0).all()
        assert (tokens[:, 1:] >= 2).all()  # neither BOS nor an unknown word


def test_a_row_names_the_document_it_begins_in(texts, model, model_folder, tmp_path):
    rows = tokenize(of_files(texts), model, model_folder, tmp_path)
    titles = pd.read_parquet(tmp_path / "documents.parquet")["title"]
    for split in ("train", "eval"):
        tokens, document = load_rows(rows, split)
        first = ((tokens[:, 1] - 2) // WORDS_OF_A_DOCUMENT).tolist()
        assert [titles[index] for index in document.tolist()] == [f"text{n:02d}" for n in first]


def test_without_packing_no_row_mixes_documents(texts, model, model_folder, tmp_path):
    rows = tokenize(of_files(texts), model, model_folder, tmp_path)
    for split in ("train", "eval"):
        assert all(len(one) == 1 for one in documents_of_tokens(load_rows(rows, split).tokens))


def all_train_rows(corpus, model, model_folder, folder) -> tuple[list[list[int]], list[list[int]]]:
    """The text of every training row, and the tokens of every training document in order."""
    fetch_corpus(corpus, folder / "documents.parquet", seed=0)
    table = pd.read_parquet(folder / "documents.parquet").query("split == 'train'")
    documents = [[int(word[1:]) + 2 for word in text.split()] for text in table["text"]]
    length = CONTEXT_LENGTH - 1
    n_rows = (
        sum(len(document) for document in documents) // length
        if corpus.pack_documents
        else sum(len(document) // length for document in documents)
    )
    every = corpus.model_copy(update={"train_contexts": n_rows})
    tokenize_corpus(
        folder / "documents.parquet", every, model, model_folder, folder / "tokens", seed=0
    )
    return load_rows(folder / "tokens", "train").tokens[:, 1:].tolist(), documents


def cut(tokens: list[int]) -> list[list[int]]:
    length = CONTEXT_LENGTH - 1
    return [tokens[i : i + length] for i in range(0, len(tokens) - length + 1, length)]


def test_with_packing_rows_are_the_stream_of_all_documents_cut_up(
    texts, model, model_folder, tmp_path
):
    corpus = of_files(texts, pack_documents=True)
    rows, documents = all_train_rows(corpus, model, model_folder, tmp_path)
    assert sorted(rows) == sorted(cut(list(chain(*documents))))


def test_without_packing_rows_are_each_document_cut_up(texts, model, model_folder, tmp_path):
    rows, documents = all_train_rows(of_files(texts), model, model_folder, tmp_path)
    assert sorted(rows) == sorted(row for document in documents for row in cut(document))


@pytest.mark.parametrize("eval_contexts", [4, 10, 12])
def test_evaluation_rows_are_spread_evenly_over_the_held_out_documents(
    texts, model, model_folder, tmp_path, eval_contexts
):
    corpus = of_files(texts, eval_contexts=eval_contexts)
    document = load_rows(tokenize(corpus, model, model_folder, tmp_path), "eval").document
    counts = document.unique(return_counts=True)[1]
    assert len(counts) == 4
    assert counts.sum() == eval_contexts
    assert counts.max() - counts.min() <= 1


def test_no_row_is_drawn_twice(texts, model, model_folder, tmp_path):
    rows = tokenize(of_files(texts), model, model_folder, tmp_path)
    for split in ("train", "eval"):
        tokens = load_rows(rows, split).tokens
        assert len(tokens.unique(dim=0)) == len(tokens)  # 10^7 possible rows: chance makes no twins


def test_training_rows_are_drawn_from_all_training_documents(texts, model, model_folder, tmp_path):
    corpus = of_files(texts, train_contexts=100)
    document = load_rows(tokenize(corpus, model, model_folder, tmp_path), "train").document
    assert len(document.unique()) == 16
    assert document.tolist() != sorted(document.tolist())


@pytest.mark.parametrize("split", ["train", "eval"])
def test_more_rows_than_there_are_is_refused_by_key(texts, model, model_folder, tmp_path, split):
    corpus = of_files(texts)
    fetch_corpus(corpus, tmp_path / "documents.parquet", seed=0)
    greedy = corpus.model_copy(update={f"{split}_contexts": 5000})
    with pytest.raises(UserError, match=rf"corpus\.{split}_contexts is 5000 rows of 8 tokens"):
        tokenize_corpus(
            tmp_path / "documents.parquet", greedy, model, model_folder, tmp_path / "t", seed=0
        )
    assert not (tmp_path / "t").exists()


def test_the_counts_recorded_are_those_of_the_rows(texts, model, model_folder, tmp_path):
    folder = tokenize(of_files(texts), model, model_folder, tmp_path)
    recorded = json.loads((folder / "tokens.json").read_text())
    for split in ("train", "eval"):
        rows = load_rows(folder, split)
        assert recorded[split]["rows"] == len(rows.tokens) == len(rows.document)
        assert recorded[split]["tokens"] == rows.tokens.numel()
        assert recorded[split]["documents"] == len(rows.document.unique())
        assert recorded[split]["rows_available"] >= recorded[split]["rows"]


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("source", ["synthetic", "files"])
def test_the_same_seed_gives_the_same_bytes_and_another_does_not(
    texts, model, model_folder, tmp_path, source
):
    corpus = synthetic() if source == "synthetic" else of_files(texts)
    for name, seed in (("first", 3), ("again", 3), ("other", 4)):
        tokenize(corpus, model, model_folder, tmp_path / name, seed)
    first, again, other = (bytes_of(tmp_path / name) for name in ("first", "again", "other"))
    assert first == again
    assert set(first) == set(other)
    assert all(first[name] != other[name] for name in first)


def test_documents_of_a_corpus_are_whole_and_sorted(texts, tmp_path):
    fetch_corpus(of_files(texts), tmp_path / "documents.parquet", seed=0)
    table = pd.read_parquet(tmp_path / "documents.parquet")
    assert list(table) == ["id", "title", "split", "characters", "text"]
    assert list(table["id"]) == [path.stem for path in sorted(texts.glob("*.txt"))]
    assert list(table["text"]) == [path.read_text() for path in sorted(texts.glob("*.txt"))]
    assert list(table["characters"]) == [len(text) for text in table["text"]]


@pytest.mark.parametrize("split", ["train", "eval"])
@pytest.mark.parametrize("damage", ["cut", "changed", "emptied", "missing"])
def test_damaged_rows_are_refused_by_name(texts, model, model_folder, tmp_path, damage, split):
    folder = tokenize(of_files(texts), model, model_folder, tmp_path)
    path = folder / f"{split}.safetensors"
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        changed = content[:-1] + bytes([content[-1] ^ 1])
        path.write_bytes({"cut": content[:-7], "changed": changed, "emptied": b""}[damage])
    with pytest.raises(UserError) as caught:
        load_rows(folder, split)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.fixture
def tokenized(texts, model, model_folder, tmp_path) -> Path:
    return tokenize(of_files(texts), model, model_folder, tmp_path)


def manifest_of(texts: Path, tokens: Path, folder: Path) -> dict:
    corpus, destination = of_files(texts), folder / "manifest.json"
    write_manifest(folder / "documents.parquet", corpus, {"tiny": tokens}, destination)
    return json.loads(destination.read_text())


def test_the_manifest_records_every_document_with_its_split_and_hash(texts, tokenized, tmp_path):
    record = manifest_of(texts, tokenized, tmp_path)
    assert record["documents_by_split"] == {"eval": 4, "train": 16}
    hashes = {p.stem: hashlib.sha256(p.read_bytes()).hexdigest() for p in texts.glob("*.txt")}
    assert {one["id"]: one["sha256"] for one in record["documents"]} == hashes
    assert [one["split"] for one in record["documents"]].count("eval") == 4


def test_the_manifest_records_the_hash_of_every_token_file(texts, tokenized, tmp_path):
    record = manifest_of(texts, tokenized, tmp_path)
    for split in ("train", "eval"):
        content = (tokenized / f"{split}.safetensors").read_bytes()
        assert record["models"]["tiny"][split]["sha256"] == hashlib.sha256(content).hexdigest()


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
    assert not (tmp_path / "manifest.json").exists()


def test_a_manifest_of_many_documents_holds_one_hash_over_the_list(texts, tokenized, tmp_path):
    table = pd.read_parquet(tmp_path / "documents.parquet")
    digests = []
    for last in ("same", "same", "other"):
        more = [{**table.iloc[-1], "id": f"more{n}", "text": "text"} for n in range(1000)]
        more[-1]["text"] = last
        pd.concat([table, pd.DataFrame(more)]).reset_index(drop=True).to_parquet(
            tmp_path / "documents.parquet"
        )
        record = manifest_of(texts, tokenized, tmp_path)
        assert record["documents"]["count"] == 1020
        digests.append(record["documents"]["sha256"])
    assert digests[0] == digests[1] != digests[2]


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


def test_an_article_becomes_its_prose():
    assert clean_wikitext(ARTICLE).split("\n") == [
        "Dogs are domesticated animals.",
        "They bark.",
        "History",
        "They have a long history.",
        "Early",
        "first item",
    ]


@pytest.mark.parametrize(
    "heading",
    ["See also", "References", "Notes", "External links", "Further reading", "Bibliography"],
)
@pytest.mark.parametrize("markup", ["=={}==", "== {} =="])
def test_the_sections_after_the_prose_are_cut(heading, markup):
    article = (
        f"Some prose.\n\n{markup.format(heading)}\n{{{{reflist}}}}\n* [[A link]]\n\n==Last==\nX"
    )
    assert clean_wikitext(article) == "Some prose."


def test_a_sentence_that_begins_like_such_a_heading_is_not_cut():
    article = "Some prose.\nReferences are kept.\n\nNotes on style.\n\nMore."
    assert clean_wikitext(article) == "Some prose.\nReferences are kept.\nNotes on style.\nMore."


@pytest.mark.parametrize(
    ("wikitext", "text"),
    [
        ("[[Batman: Year One]] is a comic.", "Batman: Year One is a comic."),
        ("[[Alien: Covenant|The film]] is new.", "The film is new."),
        ("A [[file system|file]] is kept.", "A file is kept."),
        ("An [[image]] is kept.", "An image is kept."),
    ],
)
def test_a_link_to_an_article_keeps_its_text(wikitext, text):
    assert clean_wikitext(wikitext) == text


@pytest.mark.parametrize(
    "wikitext",
    ["{{unclosed", "[[unclosed", "<ref>unclosed", "{| unclosed", "== unclosed", "", "}}"],
)
def test_broken_markup_does_not_stop_the_reading(wikitext):
    assert clean_wikitext(f"Prose.\n{wikitext}").startswith("Prose.")


def test_a_dump_gives_articles_and_neither_redirects_nor_talk(tmp_path):
    def page(number: int, namespace: int, title: str, text: str, more: str = "") -> str:
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


@pytest.fixture
def gpt2(tmp_path) -> tuple[Model, Path]:
    """GPT2-small as the scale file has it, and a folder with its real tokenizer."""
    if not REAL_GPT2_TOKENIZER.exists():
        pytest.skip(f"no tokenizer files at {REAL_GPT2_TOKENIZER}")
    folder = tmp_path / "gpt2"
    shutil.copytree(REAL_GPT2_TOKENIZER, folder)
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')
    (folder / "config.json").write_text('{"model_type": "gpt2"}')
    source = {"type": "files", "path": "unused", "license": "MIT"}
    values = {"n_layers": 12, "d_model": 768, "bos_token": "<|endoftext|>"}
    return Model.model_validate({"source": source, **values}), folder


@pytest.mark.parametrize("text", ["Hello world, and again. ", "Not the <|endoftext|> of a text. "])
def test_rows_of_gpt2s_own_tokenizer_hold_its_bos_at_position_0_alone(gpt2, tmp_path, text):
    (tmp_path / "texts").mkdir()
    for number in range(6):
        (tmp_path / "texts" / f"{number}.txt").write_text(text * 40)
    corpus = of_files(tmp_path / "texts", train_contexts=20, eval_documents=2, eval_contexts=2)
    rows = tokenize(corpus, *gpt2, tmp_path)
    for split in ("train", "eval"):
        tokens = load_rows(rows, split).tokens
        assert (tokens[:, 0] == 50256).all()
        assert (tokens[:, 1:] != 50256).all()


def test_rows_of_gpt2s_own_tokenizer_read_back_as_the_text(gpt2, tmp_path):
    from transformers import AutoTokenizer

    (tmp_path / "texts").mkdir()
    text = "Hello world, and again. " * 40
    for number in range(6):
        (tmp_path / "texts" / f"{number}.txt").write_text(text)
    corpus = of_files(tmp_path / "texts", eval_documents=2, eval_contexts=2)
    tokens = load_rows(tokenize(corpus, *gpt2, tmp_path), "train").tokens
    tokenizer = AutoTokenizer.from_pretrained(gpt2[1], local_files_only=True)
    for row in tokens:
        assert tokenizer.decode(row[1:]) in text
