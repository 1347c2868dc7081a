"""What was made is on record, and whoever reads or starts notices a change."""

import subprocess
from pathlib import Path

import pandas as pd
import pytest

from transcoders.checksums import RECORDS, check_folders, recorded
from transcoders.errors import UserError
from transcoders.files import (
    made_folder,
    made_path,
    made_sha256,
    read_table,
    write_json,
    write_table,
)

TABLE = pd.DataFrame({"a": [1, 2], "b": [0.5, 0.25]})
PATH = Path("results/table.csv")


@pytest.fixture(autouse=True)
def checkout(tmp_path, monkeypatch):
    """A folder with one table, made there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["transcoders", "evaluate", "a site", "two\nlines"])
    write_table(PATH, TABLE)


def on_record():
    return sorted(str(path.relative_to(RECORDS)) for path in RECORDS.rglob("*") if path.is_file())


def test_a_record_holds_the_command_and_a_hash_that_sha256sum_can_check():
    write_json(Path("results/below/record.json"), {"a": 1})
    assert on_record() == ["results/below/record.json", str(PATH)]
    command = "# transcoders evaluate 'a site' 'two lines'"
    assert (RECORDS / PATH).read_text() == f"{made_sha256(PATH)}  {PATH}\n{command}\n"
    check = f"find {RECORDS} -type f -exec cat {{}} + | sha256sum --check --strict --quiet"
    subprocess.run(check, shell=True, check=True)


def test_any_bit_that_changes_is_noticed_and_so_is_a_damaged_record():
    whole = PATH.read_bytes()
    for bit in range(8 * len(whole)):
        content = bytearray(whole)
        content[bit // 8] ^= 1 << bit % 8
        PATH.write_bytes(content)
        for path in (PATH, PATH.absolute()):
            with pytest.raises(UserError, match=r"table\.csv: expected SHA-256 .* delete it and"):
                read_table(path)
    PATH.write_bytes(whole)
    (RECORDS / PATH).write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="expected SHA-256"):
        read_table(PATH)


def test_a_file_without_a_record_or_made_elsewhere_is_read(tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "table.csv"
    write_table(elsewhere, TABLE)
    for path in (elsewhere, Path("committed.csv")):
        path.write_text("a\n1\n")
        assert len(read_table(path)) == 1
    assert on_record() == [str(PATH)] and not (elsewhere.parent / RECORDS).exists()


def test_a_file_that_was_not_made_again_keeps_its_record_unless_it_was_being_replaced():
    with pytest.raises(RuntimeError), made_path(PATH):
        raise RuntimeError
    assert on_record() == [str(PATH)]
    with pytest.raises(KeyboardInterrupt), recorded(PATH):
        raise KeyboardInterrupt
    assert PATH.exists() and on_record() == []


def test_every_file_of_a_folder_is_on_record_and_no_temporary_one():
    with made_folder(Path("results/made")) as folder:
        (folder / "below").mkdir()
        (folder / "below/page.html").write_text("page")
        write_table(folder / "table.csv", TABLE)
    made = ["results/made/below/page.html", "results/made/table.csv"]
    assert on_record() == [*made, str(PATH)]
    assert check_folders([Path("results")]) == 3
    with made_folder(Path("results/made")) as folder:
        (folder / "other.txt").write_text("other")
    assert on_record() == ["results/made/other.txt", str(PATH)]


def test_all_that_was_changed_is_named_at_once_and_large_files_on_demand():
    for name, content in {"a": "x", "c": "y" * 100}.items():
        write_table(Path(f"results/{name}.csv"), TABLE)
        Path(f"results/{name}.csv").write_text(content)
    folders = [Path("results"), Path("missing")]
    with pytest.raises(UserError, match=r"(?s)/a\.csv: expected.*/c\.csv: expected"):
        check_folders(folders)
    with pytest.raises(UserError) as caught:
        check_folders(folders, largest=50)
    assert "a.csv" in str(caught.value) and "c.csv" not in str(caught.value)
