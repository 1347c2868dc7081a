"""Tokens in their context are shown as the whole text shows them."""

import pytest

from helpers_models import byte_tokenizer
from transcoders.context import in_context, one_line


@pytest.fixture(scope="module")
def tokenizer():
    return byte_tokenizer()


@pytest.mark.parametrize(
    ("position", "before", "after", "expected"),
    [
        (4, 2, 2, ("cd", "e", "fg")),
        (0, 3, 1, ("", "a", "b")),
        (6, 9, 5, ("abcdef", "g", "")),
    ],
)
def test_a_token_stands_between_its_neighbours(tokenizer, position, before, after, expected):
    tokens = tokenizer("abcdefg")["input_ids"]
    assert in_context(tokenizer, tokens, position, before=before, after=after) == expected


def test_a_part_of_a_character_is_shown_by_itself(tokenizer):
    tokens = tokenizer("aéb")["input_ids"]
    assert in_context(tokenizer, tokens, 1, before=1, after=2) == ("a", "�", "�b")


def test_line_ends_are_shown_as_symbols():
    assert one_line("a\nb\n") == "a⏎b⏎"
