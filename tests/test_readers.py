"""Text from files on this machine and from datasets of the hub, read by the library `datasets`.

The hub is a server on loopback; the library's own code does all the asking and reading.
"""

import io
import os
import socket
import tempfile
from pathlib import Path

import datasets
import pandas as pd
import pytest
from huggingface_hub import HfFileSystem, close_session, constants

from helpers_corpus import corpus_of
from helpers_hub import add_to_hub
from helpers_hub_server import HubServer, Refusal, connect
from transcoders.corpus import fetch_corpus
from transcoders.corpus.readers import Document, read_source
from transcoders.errors import UserError

REPO, REVISION = "org/texts", "a" * 40
TEXTS = ["One\nof two lines, of which the second ends here.", "", "NA", "Żółw, “quoted” and 3."]


def corpus(source):
    return corpus_of({"license": "none", **source})


def read(source):
    return list(read_source(corpus(source).source[0], seed=0))


def files(path, **keys):
    return {"type": "files", "path": path if isinstance(path, list) else str(path), **keys}


def hub_dataset(**keys):
    return {"type": "hub", "repo": REPO, "revision": REVISION, **keys}


def message_of(source, folder):
    """What a user reads of a corpus that cannot be read: one line."""
    with pytest.raises(UserError) as caught:
        fetch_corpus(corpus(source), folder / "documents.parquet", seed=0)
    message = str(caught.value)
    assert "\n" not in message
    assert "expected" in message and "found" in message and "; " in message
    assert not (folder / "documents.parquet").exists()
    return message


def table(suffix, **columns):
    """A table as a file of this type."""
    frame, written = pd.DataFrame(columns), io.BytesIO()
    if suffix == ".parquet":
        frame.to_parquet(written, row_group_size=2)
    elif suffix == ".csv":
        frame.to_csv(written, index=False)
    else:
        frame.to_json(written, orient="records", lines=suffix == ".jsonl")
    return written.getvalue()


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
def test_rows_of_a_table_become_documents_and_nobody_is_asked(tmp_path, monkeypatch, capfd, suffix):
    def refuse(*address):
        asked.append(address)
        raise OSError("no network")

    asked: list[object] = []
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    folder = tmp_path / "of [all] sorts"
    (folder / "sub").mkdir(parents=True)
    (folder / f"sub/a{suffix}").write_bytes(table(suffix, text=TEXTS, number=[1, 2, 3, 4]))
    assert read(files(folder)) == [
        Document(f"sub/a{suffix}:{row:07d}", "", TEXTS[row]) for row in (0, 2, 3)
    ]
    assert asked == [] and capfd.readouterr() == ("", "")
    assert not (tmp_path / "cache").exists() and not list((tmp_path / "temporary").iterdir())


NAMES = [
    b"NA.txt", b"a {b}.txt", b"a::b.txt", b"*[x]?.txt", b"%20#.txt", b"-n.txt", b"new\nline.txt",
    "żółw 'q\".txt".encode(), b"caf\xe9.txt",
]  # fmt: skip


def test_a_folder_of_texts_with_any_names_gives_a_document_each_of_subfolders_and_links_too(
    tmp_path, monkeypatch
):
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "home/my texts"
    elsewhere.mkdir()
    for name in NAMES:
        (elsewhere / os.fsdecode(name)).write_text("text")
    for name, text in {"sub/a.txt": TEXTS[3], "EMPTY.TXT": " \n", ".git/notes.rst": "no"}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "linked").symlink_to(elsewhere)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    *linked, last = read(files("~/my texts"))
    assert last == Document("sub/a", "a", TEXTS[3])
    ids = {f"linked/{name[:-4].decode(errors='backslashreplace')}" for name in NAMES}
    assert {one.id for one in linked} == ids


def test_a_mark_in_front_and_the_ends_of_lines_are_no_text(tmp_path):
    text, table = tmp_path / "a.txt", tmp_path / "a.csv"
    text.write_bytes(b"\xef\xbb\xbfZ\xc3\xb3\r\nb\r\n")
    table.write_bytes(b'\xef\xbb\xbftext\r\n"Z\xc3\xb3\nb\n"\r\n')
    assert [one.text for path in (text, table) for one in read(files(path))] == ["Zó\nb\n"] * 2


def test_listed_files_with_columns_of_other_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, ids in {"a.jsonl": ["x", "y"], "b.json": ["z", "w"]}.items():
        content = table(Path(name).suffix, body=["Some", "text"], key=ids, text=[1, 2])
        Path(name).write_bytes(content)
    Path("not listed.jsonl").write_text("{")
    found = read(files(["b.json", "a.jsonl"], text_column="body", id_column="key"))
    texts = ["Some", "text", "Some", "text"]
    assert found == [Document(id, "", text) for id, text in zip("zwxy", texts, strict=True)]


@pytest.mark.parametrize(
    ("contents", "keys", "expected"),
    [
        ({}, {}, "texts: expected a folder with files of text, found no such folder"),
        ({}, {"path": ["absent.txt"]}, "absent.txt: expected a file, found none"),
        ({"a.txt": b"a", "sub/a.pdf": b"b"}, {}, "sub/a.pdf: expected a file of text (.txt, "),
        ({"a.txt": b"\xff\xfe"}, {}, "a.txt: expected a text file in UTF-8, found an error ('ut"),
        ({"a.txt": "ab".encode("utf-16-le")}, {}, "a.txt: expected text in UTF-8, found NUL char"),
        ({"a.csv": b"text\na"}, {"id_column": "key"}, "in the column `key`, found none (the col"),
        ({"a.csv": b"text,n\na,1\nb,1"}, {"id_column": "n"}, "found 1 twice; list a file once"),
    ],
)  # fmt: skip
def test_files_that_are_no_text_are_refused_by_name(tmp_path, contents, keys, expected):
    folder = tmp_path / "texts"
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    assert expected in message_of(files(folder) | keys, tmp_path)


def test_named_files_of_a_dataset_are_read_in_order_and_empty_documents_kept(hub):
    first, second, third = names = ("data/b.parquet", "data/a.parquet", "held/a.parquet")
    contents = dict.fromkeys(names, table(".parquet", text=TEXTS))
    add_to_hub(hub, REPO, REVISION, contents, "dataset")
    found = read(hub_dataset(data_files=[first, second], eval_data_files=[third], documents=5))
    expected = [  # with the folders, since two files have one name
        Document(f"{name}:{row:07d}", "", TEXTS[row], name == third)
        for name in names
        for row in range(4)
    ]
    # 5 documents for training: not the last 3 rows of the second table.
    assert found == expected[:5] + expected[8:]
    assert read(hub_dataset(data_files=[first]))[0].id == "b.parquet:0000000"


@pytest.fixture
def server(hub, monkeypatch):  # noqa: ARG001
    """A hub on loopback with a dataset in two files of 4 rows each."""
    contents = {"README.md": b"---\nlicense: mit\n---\n"}
    for number in range(2):
        part = table(".parquet", text=TEXTS, body=[number] * 4)
        contents[f"data/train-0000{number}-of-00002.parquet"] = part
    with HubServer(REPO, REVISION, contents, kind="dataset").running() as it:
        connect(monkeypatch, it.endpoint)
        monkeypatch.setattr(datasets.config, "HF_ENDPOINT", it.endpoint)
        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
        HfFileSystem.clear_instance_cache()
        yield it
    close_session()


@pytest.mark.parametrize("documents", [None, 3])
def test_a_split_of_a_dataset_is_read_whole_or_only_its_start_downloaded(server, capfd, documents):
    found = read(hub_dataset(config="default", documents=documents))
    expected = [Document(f"train:{row:07d}", "", text) for row, text in enumerate(TEXTS * 2)]
    assert found == expected[:documents]
    assert "Generating" not in capfd.readouterr().err
    downloaded = {what[:16] for method, what in server.requests if method == "GET"}
    both = {"data/train-00000", "data/train-00001"}
    assert downloaded & both == (both if documents is None else {"data/train-00000"})


def test_a_dataset_that_is_not_as_asked_for_or_refused_is_reported_as_for_files(
    server, tmp_path, monkeypatch
):
    server.refusals["HEAD"] = Refusal(401, "GatedRepo")
    assert "found a gated repository; accept its terms on" in message_of(hub_dataset(), tmp_path)
    server.refusals.clear()
    message = message_of(hub_dataset(config="other"), tmp_path)
    assert "expected other, split train, found an error (BuilderConfig 'other'" in message
    message = message_of(hub_dataset(text_column="body"), tmp_path)
    assert f"{REPO}: expected text in the column `body`, found 0; correct text_column" in message
    read(hub_dataset())
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    assert "while offline mode is on; unset HF_HUB_OFFLINE" in message_of(hub_dataset(), tmp_path)
