"""Labels come back from their table as they were, and what people write by hand replaces them."""

import math

import pytest

from transcoders.circuits.labels import (
    EDIT_COLUMNS,
    Label,
    named,
    read_labels,
    shown,
    with_edits,
    write_labels,
)
from transcoders.errors import UserError

MADE = {
    "early": {"tc0[1]": Label("“of”", 0.9, "token: words", ("one of", "each of"))},
    "late": {
        "tc2[1]": Label("digits", 0.6, "token: digits", ("in 17",)),
        "tc2[7]": Label("", 0.5, "none", ()),
    },
}


@pytest.mark.parametrize("text", ["", "NA", "1e5", " a, b ", 'a "b"', "'", "# é", "\\n"])
def test_labels_come_back_as_they_were(tmp_path, text):
    odd = {"tc1[2]": Label(text, 0.25, text, (f"{text}.",), text, text)}
    write_labels(tmp_path / "labels.csv", MADE | {"odd": odd})
    for name, labels in (MADE | {"odd": odd}).items():
        assert read_labels(tmp_path / "labels.csv", [name, "other"]) == labels


def edits(folder, *lines):
    path = folder / "edits.csv"
    path.write_text("\n".join([",".join(EDIT_COLUMNS), *lines]) + "\n")
    return path


def test_an_edit_replaces_the_text_and_says_who_and_why(tmp_path):
    path = edits(tmp_path, 'late,tc2[1],"years, in digits",anna,all contexts are dates')
    edited = with_edits(MADE, path)
    label = edited["late"]["tc2[1]"]
    assert label[2:] == ("", ("in 17",), "anna", "all contexts are dates")
    assert label.is_trusted and shown(label) == "years, in digits"
    assert edited["early"] == MADE["early"]
    write_labels(tmp_path / "labels.csv", edited)
    back = read_labels(tmp_path / "labels.csv", ["late"])["tc2[1]"]
    assert math.isnan(back.score) and back[2:] == label[2:]
    assert with_edits(MADE, tmp_path / "none.csv") == MADE


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("late,tc2[9],x,anna,why", r"line 2: feature tc2\[9\] has no labels; .*tc2\[1\], tc2\[7\]"),
        ("late,tc2[1],x,anna,  ", "line 2: why is empty"),
        ("late,tc2[1],x,anna,a\nlate,tc2[1],y,ben,b", r"line 3: tc2\[1\] is there twice"),
    ],
)
def test_an_edit_that_cannot_be_applied_is_refused(tmp_path, line, said):
    with pytest.raises(UserError, match=rf"edits\.csv, {said}"):
        with_edits(MADE, edits(tmp_path, line))


def test_a_table_with_other_columns_is_refused(tmp_path):
    with pytest.raises(UserError, match="expected the columns dictionary, feature, text"):
        read_labels(edits(tmp_path), [])


def test_a_label_below_the_bar_is_not_shown_as_a_name():
    good, bad, none = MADE["early"]["tc0[1]"], *MADE["late"].values()
    assert (shown(good), named(good)) == ("“of”", "“of” (0.90)")
    assert (shown(bad), named(bad)) == ("in 17", "as in “in 17” (0.60)")
    assert shown(none) == named(none) == ""
    assert shown(bad._replace(examples=("a" * 100 + " the end",))) == "…the end"
