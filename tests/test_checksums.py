"""What was made is on record, and whoever reads or starts notices a change."""

import subprocess
from pathlib import Path

import pandas as pd
import pytest

from transcoders.checksums import RECORDS, check_folders, check_made, made_sha256, recorded, sha256
from transcoders.errors import UserError
from transcoders.files import made_folder, made_path, read_json, read_table, write_json, write_table

TABLE = pd.DataFrame({"a": [1, 2], "b": [0.5, 0.25]})
PATH = Path("results/table.csv")


@pytest.fixture(autouse=True)
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one table, made there."""
    monkeypatch.chdir(tmp_path)
    write_table(PATH, TABLE)
    return tmp_path


def on_record() -> list[str]:
    return sorted(str(path.relative_to(RECORDS)) for path in RECORDS.rglob("*") if path.is_file())


def test_a_file_that_is_made_is_on_record():
    assert on_record() == [str(PATH)]
    assert made_sha256(PATH) == sha256(PATH)
    pd.testing.assert_frame_equal(read_table(PATH), TABLE)


def test_records_are_in_the_format_of_sha256sum():
    write_json(Path("results/below/record.json"), {"a": 1})
    checked = subprocess.run(
        f"find {RECORDS} -type f -exec cat {{}} + | sha256sum --check",
        shell=True, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert set(checked.stdout.splitlines()) == {
        "results/table.csv: OK",
        "results/below/record.json: OK",
    }


def test_any_bit_that_changes_is_noticed():
    path = Path("record.json")
    write_json(path, {"ce": 3.25, "l0": [1, 2, 3]})
    whole = path.read_bytes()
    for bit in range(8 * len(whole)):
        content = bytearray(whole)
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"^record\.json: expected SHA-256 .* delete it and"):
            read_json(path)


@pytest.mark.parametrize("content", [b"", b"a,b\n1,0.5\n", b"a,b\n1,0.5\n2,0.25\n3,1\n"])
@pytest.mark.parametrize("absolute", [True, False])
def test_a_table_that_was_changed_is_not_read(content, absolute):
    PATH.write_bytes(content)
    with pytest.raises(UserError, match=r"table\.csv: expected SHA-256"):
        read_table(PATH.absolute() if absolute else PATH)


def test_exchanged_files_are_noticed_though_both_are_whole():
    other, spare = PATH.with_name("other.csv"), PATH.with_name("spare")
    write_table(other, TABLE * 2)
    PATH.rename(spare)
    other.rename(PATH)
    spare.rename(other)
    for path in (PATH, other):
        with pytest.raises(UserError, match=path.name):
            read_table(path)


def test_a_file_without_a_record_is_read():
    path = Path("committed.csv")
    TABLE.to_csv(path, index=False)
    check_made(path)
    pd.testing.assert_frame_equal(read_table(path), TABLE)


def test_what_is_made_elsewhere_is_not_on_record(tmp_path_factory):
    path = tmp_path_factory.mktemp("elsewhere") / "table.csv"
    write_table(path, TABLE)
    path.write_text("a\n1\n")
    assert len(read_table(path)) == 1
    assert on_record() == [str(PATH)] and not (path.parent / RECORDS).exists()


def test_a_file_made_again_has_the_new_record():
    write_table(PATH, TABLE * 3)
    check_made(PATH)
    PATH.write_text("")
    with pytest.raises(UserError):
        check_made(PATH)


def test_while_a_file_is_replaced_nobody_vouches_for_it():
    with pytest.raises(KeyboardInterrupt), recorded(PATH):
        raise KeyboardInterrupt
    assert PATH.exists() and on_record() == []


def test_a_write_that_fails_leaves_nothing():
    path = Path("results/new.csv")
    with pytest.raises(RuntimeError), made_path(path):
        raise RuntimeError
    assert not path.exists() and on_record() == [str(PATH)]


@pytest.mark.parametrize("record", [b"", b"\xff\xfe", b"0  results/table.csv\n"])
def test_a_damaged_record_does_not_let_a_file_pass(record):
    (RECORDS / PATH).write_bytes(record)
    with pytest.raises(UserError, match="expected SHA-256"):
        check_made(PATH)


def test_every_file_of_a_folder_is_on_record_those_below_too_and_no_temporary_one():
    with made_folder(Path("results/made")) as folder:
        (folder / "text.txt").write_text("text")
        (folder / "below").mkdir()
        (folder / "below/page.html").write_text("page")
        write_table(folder / "table.csv", TABLE)
    made = [f"results/made/{name}" for name in ("below/page.html", "table.csv", "text.txt")]
    assert on_record() == [*made, str(PATH)]
    assert check_folders([Path("results")]) == 4
    with made_folder(Path("results/made")) as folder:
        (folder / "other.txt").write_text("other")
    assert on_record() == ["results/made/other.txt", str(PATH)]


def test_all_that_was_changed_is_named_at_once_and_large_files_on_demand():
    paths = [Path(f"results/{name}.csv") for name in "abc"]
    for path in paths:
        write_table(path, TABLE)
    paths[0].write_text("x")
    paths[2].write_text("y" * 100)
    with pytest.raises(UserError) as caught:
        check_folders([Path("results"), Path("missing")])
    assert "a.csv" in str(caught.value) and "c.csv" in str(caught.value)
    assert "b.csv" not in str(caught.value)
    with pytest.raises(UserError) as caught:
        check_folders([Path("results")], largest=50)
    assert "a.csv" in str(caught.value) and "c.csv" not in str(caught.value)
    assert check_folders([Path("missing")]) == 0


def test_a_hash_of_what_is_missing_is_refused():
    with pytest.raises(UserError, match=r"manifest\.json: no such file"):
        made_sha256(Path("manifest.json"))


@pytest.mark.parametrize(
    ("content", "name"), [(b"\x00\xff", "a.parquet"), (b"", "a.csv"), (b'"', "b.csv")]
)
def test_what_is_no_table_is_named(content, name):
    Path(name).write_bytes(content)
    with pytest.raises(UserError, match=rf"{name}: expected a table, found"):
        read_table(Path(name))
    with pytest.raises(UserError, match="no such file; run snakemake"):
        read_table(Path(f"missing-{name}"))
