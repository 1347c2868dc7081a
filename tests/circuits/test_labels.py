"""Labels come back from their table as they were, and what people write by hand replaces them."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transcoders.circuits.labels import (
    EDIT_COLUMNS,
    LONGEST,
    Label,
    named,
    read_labels,
    shown,
    with_edits,
    write_labels,
)
from transcoders.errors import UserError

TEXTS = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=30)
LABELS = st.builds(
    Label, TEXTS, st.integers(0, 100).map(lambda n: n / 100), TEXTS,
    st.lists(TEXTS.filter(bool), max_size=3).map(tuple), TEXTS, TEXTS,
)  # fmt: skip
NAMES = st.builds("tc{}[{}]".format, st.integers(0, 9), st.integers(0, 999))
MADE = {
    "early": {"tc0[1]": Label("“of”", 0.9, "token: words", ("one of", "each of"))},
    "late": {
        "tc2[1]": Label("digits", 0.6, "token: digits", ("in 17",)),
        "tc2[7]": Label("", 0.5, "none", ()),
    },
}


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(NAMES, LABELS, max_size=4), st.dictionaries(NAMES, LABELS, max_size=4))
def test_labels_come_back_as_they_were(tmp_path_factory, one, two):
    path = tmp_path_factory.mktemp("labels") / "labels.csv"
    write_labels(path, {"one": one, "two": two})
    assert read_labels(path, ["one"]) == one
    assert read_labels(path, ["two", "other"]) == two


def edits(folder, *lines):
    path = folder / "edits.csv"
    path.write_text("\n".join([",".join(EDIT_COLUMNS), *lines]) + "\n")
    return path


def test_an_edit_replaces_the_text_and_says_who_and_why(tmp_path):
    path = edits(tmp_path, 'late,tc2[1],"years, in digits",anna,all contexts are dates')
    edited = with_edits(MADE, path)
    label = edited["late"]["tc2[1]"]
    assert (label.text, label.by, label.why) == (
        "years, in digits", "anna", "all contexts are dates"
    )  # fmt: skip
    assert label.examples == MADE["late"]["tc2[1]"].examples
    assert label.is_trusted and shown(label) == "years, in digits"
    assert edited["early"] == MADE["early"] and MADE["late"]["tc2[1]"].text == "digits"
    write_labels(tmp_path / "labels.csv", edited)
    back = read_labels(tmp_path / "labels.csv", ["late"])["tc2[1]"]
    assert math.isnan(back.score) and back[2:] == label[2:]
    assert with_edits(MADE, tmp_path / "none.csv") == MADE


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("late,tc2[9],x,anna,why", r"line 2: feature tc2\[9\] has no labels; .*tc2\[1\], tc2\[7\]"),
        ("never,tc2[1],x,anna,why", "line 2: dictionary never has no labels; .*early, late"),
        ("late,tc2[1],x,anna,  ", "line 2: why is empty"),
        ("late,tc2[1],x,rule,why", "line 2: who is rule"),
        ("late,tc2[1],x,anna,a\nlate,tc2[1],y,ben,b", r"line 3: tc2\[1\] is there twice"),
    ],
)
def test_an_edit_that_cannot_be_applied_is_refused_in_one_sentence(tmp_path, line, said):
    path = edits(tmp_path, line)
    with pytest.raises(UserError, match=rf"edits\.csv, {said}") as error:
        with_edits(MADE, path)
    assert "\n" not in str(error.value)


def test_tables_with_other_columns_are_refused(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("feature,label\n")
    with pytest.raises(UserError, match="expected the columns dictionary, feature, label, who"):
        with_edits(MADE, path)
    with pytest.raises(UserError, match="expected the columns dictionary, feature, text"):
        read_labels(path, [])


def test_a_label_below_the_bar_is_not_shown_as_a_name():
    good, bad, none = MADE["early"]["tc0[1]"], *MADE["late"].values()
    assert (shown(good), named(good)) == ("“of”", "“of” (0.90)")
    assert shown(bad) == "in 17" and named(bad) == "as in “in 17” (0.60)"
    assert shown(none) == named(none) == ""
    long = bad._replace(examples=("a" * 100 + " the end",))
    assert shown(long) == "…the end"
    assert len(shown(bad._replace(examples=("a" * 100,)))) == LONGEST
