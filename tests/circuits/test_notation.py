"""Names of parts and targets are read back as they are printed."""

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from transcoders.circuits.notation import (
    FeatureName,
    LogitName,
    Node,
    layers_in_words,
    parse_head,
    parse_target,
)
from transcoders.errors import UserError

ODD = ["]", "[", "+", "-", " 40", "logit", "@", "@-1", "]@", "[]", " ", "tc1[2]@3", "é", "]]", "\t"]
# A token may be any text that does not look like the end of one term and the start of another.
words = st.one_of(st.sampled_from(ODD), st.text(min_size=1, max_size=6)).filter(
    lambda word: "\n" not in word and not re.search(r"\]\s*[+-]\s*logit\[", word)
)
numbers = st.integers(0, 10**6)
tokens = st.integers(-2048, 2048)


@given(layer=numbers, unit=numbers, token=st.integers(0, 2048))
def test_features_are_read_back_as_printed(layer, unit, token):
    name = str(Node("feature", layer, unit, token))
    assert parse_target(name) == FeatureName(layer, unit, token)
    assert parse_target(f"  {name} ") == FeatureName(layer, unit, token)


@given(
    terms=st.lists(st.tuples(st.sampled_from([1.0, -1.0]), words), min_size=1, max_size=4),
    token=tokens,
    space=st.sampled_from(["", " ", "  "]),
    plus=st.booleans(),
)
def test_sums_of_logits_are_read_back_whatever_the_words(terms, token, space, *, plus):
    written = [("-" if weight < 0 else "+") + space + f"logit[{word}]" for weight, word in terms]
    body = space.join(written)
    if not plus:
        body = body.removeprefix("+")
    # Two words may look like a third only when put together.
    assume(len(re.findall(r"(?:^|\])\s*[+-]?\s*logit\[", body)) == len(terms))
    assert parse_target(f"{body}{space}@{token}") == LogitName(tuple(terms), token)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("tc1[top]@-1", FeatureName(1, None, -1)),
        ("logit[a] + logit[b] - logit[c] @ 2", LogitName(((1, "a"), (1, "b"), (-1, "c")), 2)),
        ("logit[a]@1]@2", LogitName(((1.0, "a]@1"),), 2)),
        ("logit[\n]@-1", LogitName(((1.0, "\n"),), -1)),
    ],
)
def test_targets_are_read(text, name):
    assert parse_target(text) == name


@pytest.mark.parametrize(
    "text",
    ["", "tc10[5315]", "tc1[best]@1", "tc1[5]@1 tc1[5]@2", "logit[a]@x", "logit[]@1"],
)
def test_what_names_no_target_is_refused_with_examples(text):
    with pytest.raises(UserError, match=r"expected a feature such as tc10\[5315\]@8") as refused:
        parse_target(text)
    assert repr(text) in str(refused.value)


@pytest.mark.parametrize("text", ["attn9", "attn9[1]@6"])
def test_what_names_no_head_is_refused(text):
    assert parse_head(" attn9[1]") == (9, 1)
    with pytest.raises(UserError, match=r"expected a layer and head such as attn9\[1\]"):
        parse_head(text)


@pytest.mark.parametrize(
    ("node", "name", "row", "row_name"),
    [
        (Node("target", 12, -1, 8), "target@8", 26, "logits"),
        (Node("feature", 10, 5315, 8), "tc10[5315]@8", 22, "MLP 10"),
        (Node("head", 9, 1, 8, 6), "attn9[1]@6", 19, "heads 9"),
        (Node("head", 9, 1, 8), "attn9[1]", 19, "heads 9"),
        (Node("mlp", 3, -1, 8), "mlp3@8", 8, "MLP 3"),
        (Node("embed", -1, -1, 8), "embed@8", 0, "embedding"),
        (Node("bias", -1, -1, 8), "bias@8", -1, "remainders"),
    ],
)
def test_nodes_have_compact_names_and_rows(*, node, name, row, row_name):
    assert (str(node), node.row, node.row_name) == (name, row, row_name)


def test_layers_in_a_row_are_named_by_their_ends():
    assert layers_in_words([0, 4, 5, 8]) == "0, 4, 5, 8"
    assert layers_in_words(["2", "0", "1", "7"]) == "0 to 2, 7"
    assert layers_in_words([]) == ""
