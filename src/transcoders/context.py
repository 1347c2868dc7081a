"""Tokens as text that people read."""

from collections.abc import Sequence
from typing import Any, NamedTuple


class Context(NamedTuple):
    """A token, and the text around it."""

    before: str
    token: str
    after: str


def in_context(
    tokenizer: Any, tokens: Sequence[int], position: int, *, before: int, after: int = 0
) -> Context:
    """A token with its neighbours, as text.

    The tokens are decoded together, since some tokenizers leave out the space before the first word
    of a text. A token that is only a part of a character is decoded by itself.

    Args:
        tokenizer: of the model.
        tokens: of the text.
        position: of the token in the text.
        before: how many tokens to show before it, at most.
        after: how many tokens to show after it, at most.
    """

    def decode(start: int, end: int) -> str:
        return str(tokenizer.decode(tokens[start:end], clean_up_tokenization_spaces=False))

    first, last = max(position - before, 0), min(position + after + 1, len(tokens))
    ends = (position, position + 1, last)
    left, through, whole = (decode(first, end) for end in ends)
    if through.startswith(left) and whole.startswith(through):
        return Context(left, through[len(left) :], whole[len(through) :])
    return Context(left, decode(position, position + 1), decode(position + 1, last))


def one_line(text: str) -> str:
    """The text with a symbol in place of each line end."""
    return text.replace("\n", "⏎")
