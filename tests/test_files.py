"""Nothing half-written is left under its final name, and every refusal names the file."""

import hashlib
import shutil

import pytest

from transcoders.case_studies.scripts import load_script
from transcoders.checksums import check_sha256, sha256
from transcoders.claims import load_claims
from transcoders.config import load_scale
from transcoders.errors import UserError
from transcoders.files import (
    atomic_path,
    check_disk,
    made_folder,
    read_json,
    read_yaml,
    write_json,
)


class InterruptedWriteError(Exception):
    """Stands for whatever goes wrong while a file is written."""


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_takes_its_name_when_the_block_succeeds(tmp_path):
    path = tmp_path / "new" / "table.csv"
    with atomic_path(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert names(path.parent) == ["table.csv"]


def test_the_temporary_file_is_hidden_beside_the_other_and_keeps_its_suffix(tmp_path):
    with atomic_path(tmp_path / "figure.pdf") as temporary:
        temporary.touch()
        assert temporary.parent == tmp_path
        assert temporary.name.startswith(".")
        assert temporary.suffix == ".pdf"


@pytest.mark.parametrize("existed", [True, False])
@pytest.mark.parametrize("error", [InterruptedWriteError, KeyboardInterrupt])
def test_a_block_that_raises_leaves_the_old_file_and_nothing_else(tmp_path, existed, error):
    path = tmp_path / "table.csv"
    if existed:
        path.write_text("old")
    with pytest.raises(error), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise error
    assert names(tmp_path) == (["table.csv"] if existed else [])
    assert not existed or path.read_text() == "old"


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("an older and longer table")
    with atomic_path(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "an older and longer table"
    assert path.read_text() == "new"


def test_what_a_killed_process_left_does_not_get_into_the_file(tmp_path):
    path = tmp_path / "table.csv"
    with atomic_path(path) as temporary:
        temporary.touch()
    temporary.write_text("left over")
    with atomic_path(path) as again:
        assert not again.exists()
        again.write_text("new")
    assert names(tmp_path) == ["table.csv"]


def test_a_block_that_writes_nothing_does_not_leave_an_old_file_for_new(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), atomic_path(path):
        pass
    assert path.read_text() == "old"


def test_a_folder_is_replaced_whole(tmp_path):
    folder = tmp_path / "dictionary"
    folder.mkdir()
    (folder / "old.txt").write_text("old")
    with made_folder(folder) as temporary:
        (temporary / "new.txt").write_text("new")
        assert names(folder) == ["old.txt"]
    assert names(folder) == ["new.txt"]
    assert names(tmp_path) == ["dictionary"]


@pytest.mark.parametrize("existed", [True, False])
def test_a_block_that_raises_leaves_the_old_folder_and_nothing_else(tmp_path, existed):
    folder = tmp_path / "dictionary"
    if existed:
        folder.mkdir()
        (folder / "old.txt").write_text("old")
    with pytest.raises(InterruptedWriteError), made_folder(folder) as temporary:
        (temporary / "new.txt").write_text("half")
        raise InterruptedWriteError
    assert names(tmp_path) == (["dictionary"] if existed else [])
    assert not existed or names(folder) == ["old.txt"]


def test_a_folder_that_a_killed_process_left_is_emptied_first(tmp_path):
    with made_folder(tmp_path / "dictionary") as temporary:
        pass
    temporary.mkdir()
    (temporary / "left over").touch()
    with made_folder(tmp_path / "dictionary") as again:
        assert names(again) == []


def test_json_is_read_as_it_was_written_and_ends_with_a_line_end(tmp_path):
    record = {"λ": [1, 2.5, None], "name": "ü"}
    write_json(tmp_path / "cfg.json", record)
    assert read_json(tmp_path / "cfg.json") == record
    assert (tmp_path / "cfg.json").read_text().endswith("}\n")


def test_a_record_that_is_no_json_leaves_the_old_file(tmp_path):
    write_json(tmp_path / "cfg.json", {"old": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "cfg.json", {"new": object()})
    assert read_json(tmp_path / "cfg.json") == {"old": 1}
    assert names(tmp_path) == ["cfg.json"]


@pytest.mark.parametrize("content", [b"", b'{"cut": ', b"no json", b"\xff\xfe\x00"])
def test_a_damaged_json_file_is_named(tmp_path, content):
    path = tmp_path / "cache.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"cache\.json: expected JSON") as caught:
        read_json(path)
    assert str(path) in str(caught.value)


def test_a_missing_json_file_is_named_with_what_to_do(tmp_path):
    with pytest.raises(UserError, match=r"cache\.json: no such file; run snakemake"):
        read_json(tmp_path / "cache.json")


def test_sha256_is_that_of_the_bytes(tmp_path):
    content = bytes(range(256)) * 10_000  # more than one block
    (tmp_path / "file").write_bytes(content)
    assert sha256(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def test_a_file_with_another_sha256_is_refused_with_both_and_the_remedy(tmp_path):
    path = tmp_path / "weights.bin"
    path.write_bytes(b"weights")
    right, wrong = hashlib.sha256(b"weights").hexdigest(), "0" * 64
    check_sha256(path, right, "delete it")
    with pytest.raises(UserError) as caught:
        check_sha256(path, wrong, "delete it")
    assert str(caught.value) == (f"{path}: expected SHA-256 {wrong}, found {right}; delete it")


def test_too_little_disk_is_refused_with_what_is_needed_and_what_is_free(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=3_000_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    folder = tmp_path / "not" / "yet" / "there"
    check_disk(folder, 3_000_000_000, "the cache")
    with pytest.raises(UserError) as caught:
        check_disk(folder, 3_010_000_000, "the cache")
    message = str(caught.value)
    assert message.startswith(f"{folder}: the cache needs 3.01 GB of disk, 3.00 GB are free")
    assert not folder.exists()


def test_disk_is_measured_where_the_folder_will_be(tmp_path):
    check_disk(tmp_path / "not" / "yet" / "there", 1, "a byte")
    with pytest.raises(UserError, match="more than there is"):
        check_disk(tmp_path / "not" / "yet" / "there", 10**18, "more than there is")


@pytest.mark.parametrize("load", [read_yaml, load_scale, load_claims, load_script])
@pytest.mark.parametrize(
    ("written", "found"),
    [
        (b"seed: 1\nother: 2\nseed: 3\n", "the key 'seed' stands there twice"),
        (b"- {deep: {a: 1, 'a': 2}}", "the key 'a' stands there twice"),
        (b"seed: 2024-13-45", "ValueError"),  # YAML takes it for a date, which it is not
        (b"a: [", "YAML"),
        (b"a: \xff", "UTF-8"),
    ],
)
def test_what_is_wrong_in_a_file_written_by_hand_is_said(tmp_path, load, written, found):
    path = tmp_path / "mine.yaml"
    path.write_bytes(written)
    with pytest.raises(UserError) as caught:
        load(path)
    assert str(path) in str(caught.value) and found in str(caught.value)


def test_an_alias_is_no_second_key(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "a: &a {x: 1, y: 2}\nb: *a\nlist: {inner: &c {<<: *a, x: 3}}\nd: {<<: *c}\n1: a\n'1': b\n"
    )
    found = read_yaml(path)
    assert found["d"] == found["list"]["inner"] == {"x": 3, "y": 2}
    assert (found[1], found["1"]) == ("a", "b")
