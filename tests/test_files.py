"""Nothing half-written is left under its final name, and every refusal names the file."""

import os
import shutil
import time

import pandas as pd
import pytest
import torch

from transcoders.case_studies.scripts import load_script
from transcoders.checksums import sha256
from transcoders.claims import load_claims
from transcoders.config import load_scale
from transcoders.errors import UserError
from transcoders.files import (
    atomic_path,
    check_disk,
    date_back,
    made_folder,
    read_json,
    read_table,
    read_tensors,
    read_yaml,
    save_tensors,
    write_table,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_takes_its_name_when_the_block_succeeds(tmp_path):
    path = tmp_path / "new" / "figure.pdf"
    with atomic_path(path) as temporary:
        temporary.write_text("whole")
        assert (temporary.name[0], temporary.suffix) == (".", ".pdf")
    temporary.write_text("left by a killed process")
    with atomic_path(path) as again:
        assert not again.exists() and path.read_text() == "whole"
        again.write_text("new")
    with pytest.raises(KeyboardInterrupt), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "new" and names(path.parent) == ["figure.pdf"]


def test_a_folder_is_replaced_whole_or_left_as_it_was(tmp_path):
    folder = tmp_path / "dictionary_l1-0.5"
    folder.mkdir()
    (folder / "old.txt").write_text("old")
    with pytest.raises(RuntimeError), made_folder(folder) as temporary:
        (temporary / "new.txt").write_text("half")
        raise RuntimeError
    assert names(folder) == ["old.txt"] and names(tmp_path) == [folder.name]
    with made_folder(folder) as temporary:
        (temporary / "new.txt").write_text("new")
        assert names(folder) == ["old.txt"]
    assert names(folder) == ["new.txt"] and names(tmp_path) == [folder.name]


@pytest.mark.parametrize(
    ("read", "kind", "name", "content"),
    [
        (read_json, "JSON", "a.json", b'{"cut": '),
        (read_tensors, "safetensors", "a.safetensors", b"\x10" + bytes(30)),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, read, kind, name, content):
    path = tmp_path / name
    with pytest.raises(UserError, match=rf"{name}: no such file; run snakemake"):
        read(path)
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"{name}: expected {kind}, found .*; delete it and"):
        read(path)


def test_tensors_are_those_that_were_saved_or_refused(tmp_path):
    path, tensors = tmp_path / "a.safetensors", {"W": torch.arange(6.0).reshape(2, 3)}
    save_tensors(path, tensors)
    found = read_tensors(path, sha256=sha256(path))
    assert found.keys() == tensors.keys() and torch.equal(found["W"], tensors["W"])
    with pytest.raises(UserError, match=r"a\.safetensors: expected SHA-256 0000.*; train again"):
        read_tensors(path, sha256="0" * 64, remedy="train again")
    with (
        pytest.raises(UserError, match=r"made: could not be written .*free some space"),
        made_folder(tmp_path / "made") as folder,
    ):
        save_tensors(folder / "not/there/absent", tensors)


def test_names_in_a_table_stay_the_text_that_was_written(tmp_path):
    ids = ["NA", "nan", "None", "007", "3.10", "1e5", "True", " x", "a,b"]
    write_table(tmp_path / "t.csv", pd.DataFrame({"document": ids, "ce": [None, *range(1, 9)]}))
    read = read_table(tmp_path / "t.csv")
    assert read["document"].tolist() == ids
    assert read["ce"].isna().tolist() == [True] + [False] * 8


def test_files_from_the_future_get_the_present_time_and_others_keep_theirs(tmp_path):
    now = time.time()
    for name, when in {"old": now - 1000, "new {x}": now + 1e6}.items():
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (when, when))
    (tmp_path / "link").symlink_to("nowhere")
    date_back([tmp_path, tmp_path / "absent"])
    assert (tmp_path / "old").stat().st_mtime == now - 1000
    assert now - 1 < (tmp_path / "new {x}").stat().st_mtime <= time.time()


def test_too_little_disk_is_refused_with_what_is_needed_and_what_is_free(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=3_000_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    folder = tmp_path / "not" / "yet" / "there"
    check_disk(folder, 3_000_000_000, "the cache")
    with pytest.raises(UserError, match=r"there: the cache needs 3\.01 GB of disk, 3\.00 GB are"):
        check_disk(folder, 3_010_000_000, "the cache")


@pytest.mark.parametrize(
    ("written", "found"),
    [
        (b"seed: 1\nother: 2\nseed: 3\n", "the key 'seed' is there twice"),
        (b"seed: 2024-13-45", "ValueError"),  # YAML takes it for a date, which it is not
    ],
)
def test_what_is_wrong_in_a_file_written_by_hand_is_said(tmp_path, written, found):
    path = tmp_path / "mine.yaml"
    path.write_bytes(written)
    for load in (load_scale, load_claims, load_script):
        with pytest.raises(UserError, match=f"{path}.*{found}"):
            load(path)


def test_an_alias_is_no_second_key(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("a: &a {x: 1, y: 2}\nc: {<<: *a, x: 3}\n1: a\n'1': b\n")
    assert read_yaml(path) == {"a": {"x": 1, "y": 2}, "c": {"x": 3, "y": 2}, 1: "a", "1": "b"}
