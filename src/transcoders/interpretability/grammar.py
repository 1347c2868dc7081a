"""What a label of a feature can say: conditions on a token and on the tokens around it.

A condition looks at one **slot**:

- ``token``: the token itself,
- ``before``: the token before it,
- ``next``: the token after it (a feature may foresee it),
- ``near`` and ``far``: some token among the last 4 or 16.

It asks that one of at most 6 words stand there or, in the first three slots, that what stands there
has a form: digits, a capitalised word, punctuation, part of a word, an ending. A word is a token
without blanks; one that continues a word is another word, shown with a hyphen. A rule is one
condition, or two on different slots.
"""

import itertools
from collections import Counter
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

SLOTS = {
    "next": [1],
    "token": [0],
    "before": [-1],
    "near": [*range(-4, 0)],
    "far": [*range(-16, 0)],
}
"""Where each slot looks, from the token."""
OFFSETS = [1, 0, *range(-1, -17, -1)]
NOTHING = -1
"""The word outside a row, and in place of BOS."""
FORMS = {
    "digits": "digits",
    "number": "digits that begin a number",
    "second": "digits after a number’s first digit",
    "third": "digits after a number’s first two digits",
    "fourth": "digits after a number’s first three digits",
    "capitalised": "a capitalised word",
    "capitals": "capital letters",
    "punctuation": "punctuation",
    "line break": "a line break",
    "beginning": "the beginning of a longer word",
    "continuation": "the continuation of a word",
    "end": "the end of a longer word",
}
"""What can be said of the form of a token, and how."""
OF_NEIGHBOURS = (
    "digits", "capitalised", "capitals", "punctuation", "line break", "continuation",
)  # fmt: skip
"""Forms of the token before and of the next one; the others would read badly there."""
N_ENDINGS, LONGEST_ENDING, WORDS_OF_ENDING = 6, 4, 3
"""Endings tried for a feature, letters in each, and different words that it must occur in."""


class Condition(NamedTuple):
    """A slot, and what must stand there: a form, an ending, or one of some words."""

    slot: str
    form: str = ""
    ending: str = ""
    words: tuple[str, ...] = ()

    @property
    def cost(self) -> int:
        """How much it says: one for each word, form or ending."""
        return max(len(self.words), 1)

    @property
    def said(self) -> str:
        """What must stand there, in English."""
        if self.ending:
            return f"words ending in “-{self.ending}”"
        if self.form:
            return FORMS[self.form]
        *others, last = (f"“{word}”" for word in self.words)
        return f"{', '.join(others)} or {last}" if others else last

    @property
    def rule(self) -> str:
        """Which rule of the grammar it is."""
        return f"{self.slot}: {self.form or ('ending' if self.ending else 'words')}"


def in_english(conditions: tuple[Condition, ...]) -> str:
    """A rule as a person would write it."""
    by_slot = {condition.slot: condition.said for condition in conditions}
    parts = [by_slot["token"]] if "token" in by_slot else []
    if "before" in by_slot:
        parts.append(f"{'after' if parts else 'what follows'} {by_slot['before']}")
    for slot, reach in (("near", 4), ("far", 16)):
        if slot in by_slot:
            parts.append(f"up to {reach} tokens after {by_slot[slot]}")
    if "next" in by_slot:
        parts.append(f"{'before' if parts else 'what comes before'} {by_slot['next']}")
    return " ".join(parts)


class Text:
    """A text as conditions see it. Made once for all features."""

    def __init__(self, tokens: list[list[str]]) -> None:
        """Look at every token.

        Args:
            tokens: rows of equal length, each token with its leading blank. The first of a row is
                BOS.
        """
        rows = [["", *row[1:]] for row in tokens]
        # Whether a token goes on with the word before it.
        continues = [
            [False] + [a[-1:].isalpha() and b[:1].isalpha() for a, b in itertools.pairwise(row)]
            for row in rows
        ]
        named = [
            ["-" * within + token.strip(" ") for token, within in zip(row, its, strict=True)]
            for row, its in zip(rows, continues, strict=True)
        ]
        self.names = sorted({word for row in named for word in row[1:]})
        number = {word: place for place, word in enumerate(self.names)}
        self.words: Int[np.ndarray, "row position"] = np.array(
            [[NOTHING, *(number[word] for word in row[1:])] for row in named]
        )
        within = np.array(continues)
        goes_on = np.pad(within[:, 1:], ((0, 0), (0, 1)))
        letters = np.array([[token.strip(" ").isalpha() for token in row] for row in rows])
        self.forms: dict[str, Bool[np.ndarray, "row position"]] = {
            "continuation": within,
            "beginning": letters & ~within & goes_on,
            "end": within & ~goes_on,
            **{
                form: np.array([[bool(test(token.strip(" "))) for token in row] for row in rows])
                for form, test in _TESTS.items()
            },
        }
        self.forms["capitalised"] &= ~within
        before = np.array([_digits_before(row) for row in rows])
        for n, form in enumerate(("number", "second", "third", "fourth")):
            self.forms[form] = self.forms["digits"] & (before == n)

        shapes = [self.forms[form] for form in OF_NEIGHBOURS]
        self.shapes: Int[np.ndarray, "row position"] = np.argmax([*shapes, ~np.any(shapes, 0)], 0)
        """A number for each token: the first of the neighbours' forms that it has, or none."""
        tails = [name[-3:] if name.strip("-").isalpha() else "" for name in self.names]
        known = {tail: place for place, tail in enumerate(sorted({*tails} - {""}))}
        places = np.array([*(known.get(tail, NOTHING) for tail in tails), NOTHING])
        self.tails: Int[np.ndarray, "row position"] = places[self.words]
        """A number for each token: the last three letters of its word."""

    def is_shown(self, word: int) -> bool:
        """Whether a reader would see the word: it is more than blanks and line breaks."""
        return word != NOTHING and bool(self.names[word].strip())

    def endings(self, words: Int[np.ndarray, " token"]) -> list[str]:
        """The commonest endings among some tokens, each of several different words."""
        found = Counter(
            name[-n:]
            for name in {self.names[word] for word in words if word != NOTHING}
            for n in range(2, LONGEST_ENDING + 1)
            if name.strip("-").isalpha() and len(name.strip("-")) > n
        )
        common = [(-times, ending) for ending, times in found.items() if times >= WORDS_OF_ENDING]
        return [ending for _, ending in sorted(common)[:N_ENDINGS]]


class Around:
    """Some tokens of a text with what stands around them."""

    def __init__(
        self, text: Text, row: Int[np.ndarray, " token"], position: Int[np.ndarray, " token"]
    ) -> None:
        """Look up the words and forms around each token."""
        self._text, n = text, text.words.shape[1]
        at = position[:, None] + np.array(OFFSETS)
        inside = (at >= 0) & (at < n)
        at = at.clip(0, n - 1)
        self._words = np.where(inside, text.words[row[:, None], at], NOTHING)
        self._forms = {
            form: there[row[:, None], at[:, :3]] & inside[:, :3]
            for form, there in text.forms.items()
        }

    def words(self, slot: str) -> Int[np.ndarray, "token place"]:
        """The words in a slot."""
        return self._words[:, [OFFSETS.index(offset) for offset in SLOTS[slot]]]

    def holds(self, condition: Condition) -> Bool[np.ndarray, " token"]:
        """At which tokens a condition holds."""
        if condition.form:
            return self._forms[condition.form][:, OFFSETS.index(SLOTS[condition.slot][0])]
        words, names = self.words(condition.slot), self._text.names
        if condition.ending:
            fitting = [
                place
                for place, name in enumerate(names)
                if name.endswith(condition.ending) and len(name.strip("-")) > len(condition.ending)
            ]
        else:
            fitting = [names.index(word) for word in condition.words if word in names]
        return np.asarray(np.isin(words, fitting).any(axis=1))


_TESTS = {
    "digits": str.isdigit,
    "capitalised": lambda word: word[:1].isupper() and not (len(word) > 1 and word.isupper()),
    "capitals": lambda word: len(word) > 1 and word.isalpha() and word.isupper(),
    "punctuation": lambda word: word.strip() and not any(map(str.isalnum, word)),
    "line break": lambda word: "\n" in word,
}


def _digits_before(row: list[str]) -> list[int]:
    """How many digits stand directly before each token, in the same number."""
    counts, so_far = [], 0
    for token in row:
        if token[:1] == " " or not token.strip(" ").isdigit():
            so_far = 0
        counts.append(so_far)
        if token.strip(" ").isdigit():
            so_far += len(token.strip(" "))
    return counts
