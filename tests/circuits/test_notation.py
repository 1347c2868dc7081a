"""Names of parts and targets are read back as they are printed."""

import re

import pytest

from transcoders.circuits.notation import (
    FeatureName,
    LogitName,
    Node,
    layers_in_words,
    parse_target,
)
from transcoders.errors import UserError

ODD = ["]", "[", "+", "-", " 40", "logit", "@", "@-1", "]@", "[]", " ", "tc1[2]@3", "é", "]]", "\n"]
"""A token may be any text that does not look like the end of one term and the start of another."""


@pytest.mark.parametrize("word", ODD)
@pytest.mark.parametrize(("before", "between"), [("", "-"), ("+ ", " - ")])
def test_sums_of_logits_are_read_back_whatever_the_words(word, before, between):
    name = f"{before}logit[{word}]{between}logit[ a]{between}logit[{word}]@-1"
    assert parse_target(name) == LogitName(((1.0, word), (-1.0, " a"), (-1.0, word)), -1)


def test_features_are_read_back_as_printed():
    assert parse_target(str(Node("feature", 10, 5315, 8))) == FeatureName(10, 5315, 8)
    assert parse_target(" tc1[top]@-1 ") == FeatureName(1, None, -1)


@pytest.mark.parametrize("text", ["tc1[5]@1 tc1[5]@2", "logit[]@1"])
def test_what_names_no_target_is_refused_with_examples(text):
    message = rf"{re.escape(text)}.*expected a feature such as tc10\[5315\]@8"
    with pytest.raises(UserError, match=message):
        parse_target(text)


@pytest.mark.parametrize(
    ("node", "name", "row", "row_name"),
    [
        (Node("target", 12, -1, 8), "target@8", 26, "logits"),
        (Node("head", 9, 1, 8, 6), "attn9[1]@6", 19, "heads 9"),
        (Node("mlp", 3, -1, 8), "mlp3@8", 8, "MLP 3"),
        (Node("embed", -1, -1, 8), "embed@8", 0, "embedding"),
        (Node("bias", -1, -1, 8), "bias@8", -1, "remainders"),
    ],
)
def test_nodes_have_compact_names_and_rows(*, node, name, row, row_name):
    assert (str(node), node.row, node.row_name) == (name, row, row_name)


def test_layers_in_a_row_are_named_by_their_ends():
    assert layers_in_words(["2", "0", "1", "7", "8"]) == "0 to 2, 7, 8"
