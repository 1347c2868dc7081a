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


def test_a_folder_of_text_files_gives_a_document_each_of_subfolders_too(tmp_path):
    for name, text in {
        "b.txt": TEXTS[0], "sub/a.txt": TEXTS[3], "sub/EMPTY.TXT": "", "blank.txt": " \n",
        ".hidden.txt": "no", ".git/notes.rst": "no",
    }.items():  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert read(files(tmp_path)) == [
        Document("b", "b", TEXTS[0]), Document("sub/a", "a", TEXTS[3]),
    ]  # fmt: skip


NAMES = [
    b"NA.txt", b"a {b}.txt", b"a::b.txt", b"*[x]?.txt", b"%20#.txt", b"-n.txt", b"new\nline.txt",
    "żółw 'q\".txt".encode(), b"caf\xe9.txt",
]  # fmt: skip


def test_files_and_folders_may_have_any_names_and_be_links(tmp_path, monkeypatch):
    elsewhere, home = tmp_path / "elsewhere", tmp_path / "home"
    elsewhere.mkdir()
    (home / "my texts").mkdir(parents=True)
    (home / "my texts/linked").symlink_to(elsewhere)
    for name in NAMES:
        (elsewhere / os.fsdecode(name)).write_text("text")
    monkeypatch.setenv("HOME", str(home))
    ids = [name[:-4].decode(errors="backslashreplace") for name in NAMES]
    assert {one.id for one in read(files("~/my texts"))} == {f"linked/{id}" for id in ids}
    assert read(files(["~/my texts/linked/NA.txt"]))[0].title == "NA"


@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        (".txt", b"\xef\xbb\xbfZ\xc3\xb3\r\nb\r\n"),
        (".jsonl", b'\xef\xbb\xbf{"text": "Z\\u00f3\\nb\\n"}\r\n'),
        (".csv", b'\xef\xbb\xbftext\r\n"Z\xc3\xb3\nb\n"\r\n'),
    ],
)
def test_a_mark_in_front_and_the_ends_of_lines_are_no_text(tmp_path, suffix, content):
    (tmp_path / f"a{suffix}").write_bytes(content)
    assert [one.text for one in read(files(tmp_path))] == ["Zó\nb\n"]


def test_listed_files_with_columns_of_other_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, ids in {"a.jsonl": ["x", "y"], "b.json": ["z", "w"]}.items():
        Path(name).write_bytes(
            table(Path(name).suffix, body=["Some", "text"], key=ids, text=[1, 2])
        )
    Path("not listed.jsonl").write_text("{")
    found = read(files(["b.json", "a.jsonl"], text_column="body", id_column="key"))
    assert found == [
        Document(id, "", text)
        for id, text in zip("zwxy", ["Some", "text"] * 2, strict=True)
    ]  # fmt: skip
    assert read(files(Path("a.jsonl"), text_column="body"))[0].id == "a.jsonl:0000000"


@pytest.mark.parametrize(
    ("contents", "keys", "expected"),
    [
        ({}, {}, "texts: expected a folder with files of text, found no such folder"),
        ({".hidden": b""}, {}, "found no file in it"),
        ({}, {"path": ["absent.txt"]}, "absent.txt: expected a file, found none"),
        ({"a.txt": b"a", "sub/a.pdf": b"b"}, {}, "sub/a.pdf: expected a file of text (.txt, "),
        ({"a.txt": b"a", "b.csv": b"text\na"}, {}, "expected files of one type, found csv, text"),
        ({"a.txt": b"\xff\xfe"}, {}, "a.txt: expected a text file in UTF-8, found an error ('ut"),
        ({"a.txt": "ab".encode("utf-16-le")}, {}, "a.txt: expected text in UTF-8, found NUL char"),
        ({"a.jsonl": b'{"text": '}, {}, "a.jsonl: expected a json file"),
        ({"a.parquet": b"PAR1"}, {}, "a.parquet: expected a parquet file"),
        ({"a.csv": b"body,n\na,1"}, {}, "column `text`, found the columns body, n; correct text_"),
        ({"a.csv": b"text\n1\n2"}, {}, "expected text in the column `text`, found 1; correct"),
        ({"a.csv": b"text\na"}, {"id_column": "key"}, "in the column `key`, found none (the col"),
        ({"a.csv": b"text,n\na,1\nb,1"}, {"id_column": "n"}, "found 1 twice; list a file once"),
    ],
)  # fmt: skip
def test_files_that_are_no_text_are_refused_by_name(tmp_path, capfd, contents, keys, expected):
    folder = tmp_path / "texts"
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    assert expected in message_of(files(folder) | keys, tmp_path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("suffix", [".txt", ".parquet"])
def test_named_files_of_a_dataset_are_read_in_order_and_empty_documents_kept(hub, suffix):
    contents = {
        name: TEXTS[0].encode() if suffix == ".txt" else table(suffix, text=TEXTS)
        for name in (f"data/b{suffix}", f"data/a{suffix}", f"held/a{suffix}")
    }
    add_to_hub(hub, REPO, REVISION, contents, "dataset")
    first, second, third = contents
    found = read(hub_dataset(data_files=[first, second], eval_data_files=[third], documents=5))
    n_rows = 1 if suffix == ".txt" else 4
    expected = [  # with the folders, since two files have one name
        Document(f"{name}:{row:07d}", "", TEXTS[row], name == third)
        for name in contents
        for row in range(n_rows)
    ]
    # 5 documents for training: not the last 3 rows of the second table.
    assert found == (expected if n_rows == 1 else expected[:5] + expected[8:])
    assert read(hub_dataset(data_files=[first]))[0].id == f"b{suffix}:0000000"


@pytest.fixture
def server(hub, monkeypatch):  # noqa: ARG001
    """A hub on loopback with a dataset in two files of 4 rows each."""
    contents = {"README.md": b"---\nlicense: mit\n---\n"} | {
        f"data/train-0000{number}-of-00002.parquet": table(
            ".parquet", text=TEXTS, body=[number] * 4
        )
        for number in range(2)
    }
    with HubServer(REPO, REVISION, contents, kind="dataset").running() as it:
        connect(monkeypatch, it.endpoint)
        monkeypatch.setattr(datasets.config, "HF_ENDPOINT", it.endpoint)
        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
        HfFileSystem.clear_instance_cache()
        yield it
    close_session()


@pytest.mark.parametrize("documents", [None, 3])
def test_a_split_of_a_dataset_is_read_whole_or_only_its_start_downloaded(server, capfd, documents):
    keys = {} if documents is None else {"documents": documents}
    found = read(hub_dataset(config="default", **keys))
    expected = [Document(f"train:{row:07d}", "", text) for row, text in enumerate(TEXTS * 2)]
    assert found == expected[:documents]
    assert "Generating" not in capfd.readouterr().err
    downloaded = {request.what[:16] for request in server.gets()} - {"README.md"}
    both = {"data/train-00000", "data/train-00001"}
    assert downloaded & both == (both if documents is None else {"data/train-00000"})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"split": "test", "documents": 3}, "expected split test, found an error ("),
        ({"config": "other"}, "expected other, split train, found an error (BuilderConfig 'other'"),
        ({"revision": "b" * 40}, "found no such revision in the repository; correct `revision`"),
        ({"repo": "org/absent"}, "found no dataset of that name on http://127.0.0.1"),
        ({"text_column": "body"}, f"{REPO}: expected text in the column `body`, found 0; correct"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("server")
def test_a_dataset_that_is_not_as_asked_for_is_refused(tmp_path, changes, expected):
    message = message_of(hub_dataset(**changes), tmp_path)
    assert expected in message
    assert "in the scale file" in message


def test_a_dataset_that_the_hub_refuses_is_told_as_for_files(server, tmp_path, monkeypatch):
    server.refusals["HEAD"] = Refusal(401, "GatedRepo")
    assert "found a gated repository; accept its terms on" in message_of(hub_dataset(), tmp_path)
    server.refusals = {"GET": Refusal(403)}
    assert "check the network, HF_HUB_OFFLINE and HF_TOKEN" in message_of(
        hub_dataset(documents=2), tmp_path
    )
    server.refusals.clear()
    read(hub_dataset())
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    assert "while offline mode is on; unset HF_HUB_OFFLINE" in message_of(hub_dataset(), tmp_path)
