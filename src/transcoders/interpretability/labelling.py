"""Labels of features from what they do on held-out text: propose, choose, score elsewhere.

The first four kinds of hard examples and all numbers were fixed before any result was looked at.
The other two came after a trial, in which “a capitalised word” passed for features of single names.

**Positives** are the tokens of the strongest tenth of a feature's activations, but at least 40 of
them, or all if there are fewer. **Silent** tokens are those where it is 0; weakly active tokens are
neither. Documents are dealt to two halves in turn, those with the most positives first. In each
half, n is the number of tokens where the feature is active, at most 1,000. The silent tokens of a
half are n/2 drawn at random and six kinds of **hard** ones, up to n of each. Four kinds share
something with a positive: the token, the token before, the next token, or the last three letters.
The others have the form that most positives have, or are up to 16 tokens from a positive.

The **score** of a rule on a half is the smallest of six balanced accuracies. Each compares the
positives with the random silent tokens and one kind of hard ones. So a rule that only names a token
reaches 0.75 where the feature is active on at least two thirds of the tokens so named. A rule that
only names the token before, or the next one, is held to the same.

1. On one half, each slot of the grammar (:mod:`~transcoders.interpretability.grammar`) proposes its
   forms and grows a set of words, the best first. A word must occur with two positives.
2. To each of the best 10 conditions, every other slot adds a second condition in the same way.
3. The rule with the best score less its price is chosen; among equals, the one that says less, then
   the first in the alphabet. Each word or form costs 0.01, or what two positives are worth if that
   is more: with few examples only a simple rule is more than chance.
4. Its score on the other half is the label's. If a half has fewer than 5 positives or silent
   tokens, there is no label.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.ndimage import maximum_filter1d

from transcoders.circuits.labels import N_EXAMPLES, Label
from transcoders.context import in_context, one_line
from transcoders.corpus import Rows
from transcoders.interpretability.grammar import (
    FORMS,
    NOTHING,
    OF_NEIGHBOURS,
    SLOTS,
    Around,
    Condition,
    Text,
    in_english,
)

SHARE, AT_LEAST, FEWEST = 0.1, 40, 5
"""The share of active tokens that are positives, the smallest number of positives, and how many
positives and silent tokens a half must have."""
MOST_SILENT = 1000
BEFORE = 8
"""Tokens of an example before the one where the feature is active."""
REACH = 16
"""Silent tokens so near a positive are hard."""
PRICE = 0.01
N_EXTENDED, MOST_WORDS, N_WORDS, SUPPORT = 10, 6, 20, 2
"""Conditions that get a second one; words of a set; words tried; positives that each needs."""
Places = Int[np.ndarray, "token 2"]
"""Rows and positions."""


NONE = Label("", 0.5, "none", ())
"""Too few examples to learn from. Nothing is known, so the score is that of chance."""


class Half(NamedTuple):
    """The examples of one half of the documents."""

    places: Places
    weights: Float[np.ndarray, "token rate"]
    """Columns that turn a rule's values at the tokens into rates: of positives, then of each kind
    of silent tokens."""

    @property
    def counts(self) -> Int[np.ndarray, " rate"]:
        """How many positives there are, and silent tokens of each kind."""
        return np.count_nonzero(self.weights, axis=0)

    @property
    def price(self) -> float:
        """What a rule must gain for each word or form that it names."""
        return max(PRICE, 1 / self.counts[0])

    @property
    def positive(self) -> Bool[np.ndarray, " token"]:
        """Which tokens are positives."""
        return self.weights[:, 0] > 0

    def scores(self, holds: Bool[np.ndarray, "rule token"]) -> Float[np.ndarray, " rule"]:
        """The smallest balanced accuracy of each rule."""
        rates = holds.astype(np.float64) @ self.weights
        return (rates[:, 0] + 1 - rates[:, 1:].max(axis=1)) / 2


class Rule(NamedTuple):
    """One condition or two, and where they hold among the examples it is chosen by."""

    conditions: tuple[Condition, ...]
    holds: Bool[np.ndarray, " token"]
    value: float
    """Its score less its price."""

    @property
    def order(self) -> tuple[float, int, str]:
        """The better rule comes first, then the simpler, then the first in the alphabet."""
        cost = sum(condition.cost for condition in self.conditions)
        return -round(self.value, 9), cost, in_english(self.conditions)


def find_label(
    text: Text,
    document: Int[np.ndarray, " row"],
    z: Float[np.ndarray, "row position"],
    *,
    first_position: int,
    seed: int,
) -> Label:
    """The rule that best tells where a feature is active, as a label without examples.

    Args:
        text: the tokens.
        document: of each row.
        z: the feature's activations.
        first_position: earlier positions do not count.
        seed: of the draw of silent tokens.
    """
    chosen_by, scored_on = split_examples(text, document, z, first_position, seed)
    if min(half.counts.min() for half in (chosen_by, scored_on)) < FEWEST:
        return NONE
    around = Around(text, *chosen_by.places.T)
    singles = sorted(_proposed(text, around, chosen_by, None), key=lambda rule: rule.order)
    rules = [*singles]
    for rule in singles[:N_EXTENDED]:
        rules += _proposed(text, around, chosen_by, rule)
    best = min(rules, key=lambda rule: rule.order, default=None)
    if best is None:
        return NONE
    there = Around(text, *scored_on.places.T)
    holds = np.logical_and.reduce([there.holds(each) for each in best.conditions])
    named = " & ".join(condition.rule for condition in best.conditions)
    return Label(in_english(best.conditions), float(scored_on.scores(holds[None])[0]), named, ())


def _proposed(text: Text, around: Around, half: Half, first: Rule | None) -> Iterator[Rule]:
    """Rules of one condition, or with a second condition after the first."""
    before = () if first is None else first.conditions
    mask = np.ones(len(half.places), bool) if first is None else first.holds
    price = half.price * sum(condition.cost for condition in before)

    def rules(conditions: list[Condition]) -> Iterator[Rule]:
        if conditions:
            holds = np.array([around.holds(condition) & mask for condition in conditions])
            for condition, its, score in zip(conditions, holds, half.scores(holds), strict=True):
                value = float(score) - price - half.price * condition.cost
                both = sorted((*before, condition), key=lambda each: list(SLOTS).index(each.slot))
                yield Rule(tuple(both), its, value)

    positive = half.positive & mask
    for slot in SLOTS:
        if slot in {condition.slot for condition in before}:
            continue
        if len(SLOTS[slot]) == 1:
            forms = FORMS if slot == "token" else OF_NEIGHBOURS
            yield from rules([Condition(slot, form=form) for form in forms])
        if slot == "token":
            endings = text.endings(around.words(slot)[positive, 0])
            yield from rules([Condition(slot, ending=ending) for ending in endings])
        yield from rules(_growing(text, around.words(slot), half, mask, slot))


def _growing(
    text: Text,
    words: Int[np.ndarray, "token place"],
    half: Half,
    mask: Bool[np.ndarray, " token"],
    slot: str,
) -> list[Condition]:
    """Sets of one, two, … words for a slot: each adds the word that helps most."""
    # A word counts once for a token, wherever in the slot it stands.
    own = [np.unique(row) for row in words[half.positive & mask]]
    there, times = np.unique(np.concatenate([*own, [NOTHING]]), return_counts=True)
    wanted = [w for w, n in zip(there, times, strict=True) if n >= SUPPORT and text.is_shown(w)]
    masks = {word: (words == word).any(axis=1) & mask for word in wanted}
    alone = half.scores(np.array([*masks.values()])) if wanted else ()
    best_alone = sorted(zip(-np.array(alone), wanted, strict=True))[:N_WORDS]
    candidates = [word for _, word in best_alone]
    chosen: list[int] = []
    union, best, sets = np.zeros_like(mask), 0.0, []
    while candidates and len(chosen) < MOST_WORDS:
        scores = half.scores(np.array([union | masks[word] for word in candidates]))
        place = int(scores.argmax())
        if chosen and scores[place] <= best + half.price:
            break
        best, union = float(scores[place]), union | masks[candidates[place]]
        chosen.append(candidates.pop(place))
        sets.append(Condition(slot, words=tuple(text.names[word] for word in chosen)))
    return sets


def split_examples(
    text: Text,
    document: Int[np.ndarray, " row"],
    z: Float[np.ndarray, "row position"],
    first_position: int,
    seed: int,
) -> tuple[Half, Half]:
    """The half by which a rule is chosen, and the half on which it is scored."""
    z = z.copy()
    z[:, :first_position] = -1  # neither active nor silent
    active, silent = np.argwhere(z > 0), np.argwhere(z == 0)
    order = np.argsort(-z[tuple(active.T)], kind="stable")
    positives = active[order[: max(int(SHARE * len(active)), AT_LEAST)]]
    documents, first = np.unique(document, return_inverse=True)
    counts = np.bincount(first[positives[:, 0]], minlength=len(documents))
    turn = np.empty(len(documents), int)
    turn[np.argsort(-counts, kind="stable")] = np.arange(len(documents)) % 2
    half_of = turn[first]  # of each row
    random = np.random.default_rng(seed)
    halves = []
    for half in (0, 1):
        its, on, off = (p[half_of[p[:, 0]] == half] for p in (positives, active, silent))
        halves.append(_half(text, its, on, off, random))
    return halves[0], halves[1]


def _half(
    text: Text, positives: Places, active: Places, silent: Places, random: np.random.Generator
) -> Half:
    """Positives of a half, and silent tokens at random and of each hard kind."""
    n = min(len(active), MOST_SILENT)

    def drawn(places: Places, n: int = n) -> Places:
        kept = random.choice(len(places), min(n, len(places)), replace=False)
        return places[np.sort(kept)]

    at_random = drawn(silent, (n + 1) // 2)
    padded = np.pad(text.words, ((0, 0), (1, 1)), constant_values=NOTHING)
    before, after = padded[:, :-2], padded[:, 2:]
    kinds = [
        np.isin(there, there[tuple(positives.T)]) & (there != NOTHING)
        for there in (text.words, before, after, text.tails)
    ]
    commonest = np.bincount(text.shapes[tuple(positives.T)], minlength=1).argmax()
    kinds.append(text.shapes == commonest)
    near = np.zeros(text.words.shape, bool)
    near[tuple(positives.T)] = True
    kinds.append(maximum_filter1d(near, 2 * REACH + 1, axis=1, mode="constant"))
    groups = [positives]
    groups += [np.concatenate([at_random, drawn(silent[kind[tuple(silent.T)]])]) for kind in kinds]
    sizes = [len(places) for places in groups]
    weights = np.eye(len(groups)).repeat(sizes, axis=0) / np.maximum(sizes, 1)
    return Half(np.concatenate(groups), weights)


def label_of(
    tokenizer: Any,
    rows: Rows,
    text: Text,
    z: Float[np.ndarray, "row position"],
    *,
    first_position: int,
    seed: int,
) -> Label:
    """The label of a feature, with its clearest contexts.

    Args:
        tokenizer: of the model.
        rows: the text as tokens.
        text: the same as conditions see it.
        z: the feature's activations.
        first_position: earlier positions do not count.
        seed: of the draw of silent tokens.
    """
    found = find_label(text, rows.document.numpy(), z, first_position=first_position, seed=seed)
    z, tokens = z[:, 1:], rows.tokens[:, 1:]  # BOS is no text
    peak, examples = z.max(axis=1), []
    for row in np.argsort(-peak, kind="stable")[:N_EXAMPLES]:
        if peak[row] > 0:
            at = int(z[row].argmax())
            before, token, _ = in_context(tokenizer, tokens[row].tolist(), at, before=BEFORE)
            examples.append(one_line(before + token).strip())
    return found._replace(text=one_line(found.text), examples=tuple(examples))
