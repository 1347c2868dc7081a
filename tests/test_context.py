"""Tokens in their context are shown as the whole text shows them."""

import pytest

from helpers_models import byte_tokenizer
from transcoders.context import in_context


@pytest.mark.parametrize(
    ("text", "position", "expected"),
    [
        ("abcdefg", 0, ("", "a", "bc")),
        ("abcdefg", 6, ("abcdef", "g", "")),
        ("aéb", 1, ("a", "�", "�b")),  # a part of a character is shown by itself
    ],
)
def test_a_token_stands_between_its_neighbours(text, position, expected):
    tokenizer = byte_tokenizer()
    tokens = tokenizer(text)["input_ids"]
    assert in_context(tokenizer, tokens, position, before=6, after=2) == expected
