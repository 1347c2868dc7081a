"""A blind study of two dictionaries and its sealed key.

Features of a transcoder and of an MLP-in SAE are shown as items 1, 2, …, and which is which must
not show. So what a rater sees is a function of the seed and of *where* features are active, and of
nothing else: exchange the dictionaries, renumber their features or rescale their activations, and
every item stays the same in the same place.

1. Of each dictionary's live features, n are drawn: those with the smallest hashes of seed and
   examples. (A random generator would have to be told which dictionary comes first.)
2. The n of one are paired with the n of the other, and both of a pair show equally many examples,
   as many as the rarer of them has. Otherwise a short list would mean an SAE wherever SAEs have
   rarer features; to drop rare features instead would be to rate another population.
3. All are put in the order of hashes of seed and what is shown.
4. A rater's file records the SHA-256 of key and items with a nonce before the first rating, so that
   neither can be exchanged afterwards. The key is not on disk: it is computed again from the same
   tables, and given out only when the rater has rated everything and finished.
"""

import hashlib
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd
from jaxtyping import Int

from transcoders.config import Kind
from transcoders.context import in_context
from transcoders.errors import UserError
from transcoders.interpretability.automatic import live_features
from transcoders.interpretability.gather import Observed, Text
from transcoders.rating.records import Record, load_record, record_path, save_record

RATED_KINDS: tuple[Kind, Kind] = ("transcoder", "mlp_in_sae")
"""What Table 1 compares."""
N_TOP = 12
N_SAMPLED = 6
"""Examples shown at most: those where a feature is most active, and others."""
REACH = 10
"""Tokens shown to each side of the peak."""
SIGNS = {"\n": "⏎", "\r": "␍", "\t": "⇥", "\xa0": "\xa0"}


class RatedDictionary(NamedTuple):
    """A dictionary whose features are to be rated."""

    name: str
    kind: Kind
    observed: Observed


class Source(NamedTuple):
    """Where an item comes from: what the key says."""

    dictionary: str
    kind: Kind
    feature: int


class Example(NamedTuple):
    """A place where a feature is active, as texts that are fit to be seen."""

    before: str
    peak: str
    after: str


class Item(NamedTuple):
    """All that a rater is shown of one feature."""

    top: tuple[Example, ...]
    sampled: tuple[Example, ...]
    """Of other rows than any of the best, spread over activation, the strongest first."""


@dataclass(frozen=True)
class Study:
    """Items in the order in which they are shown, and the sealed key to them."""

    items: tuple[Item, ...]
    _key: tuple[Source, ...] = field(repr=False)

    def commit(self, nonce: str) -> str:
        """SHA-256, in hexadecimal, of a nonce, the key and all that is shown."""
        sealed = json.dumps([nonce, self._key, self.items])
        return hashlib.sha256(sealed.encode()).hexdigest()

    def check(self, record: Record) -> None:
        """Refuse a record of another study.

        Raises:
            UserError: its commitment does not fit this key and these items.
        """
        expected = (len(self.items), self.commit(record.nonce))
        if (found := (record.n_items, record.commitment)) != expected:
            raise UserError(
                f"{record.rater}.json: expected {expected[0]} items and commitment {expected[1]}, "
                f"found {found[0]} and {found[1]}; the seed, the examples or the text changed "
                f"since {record.rater} began: restore them, or move the file away and rate anew"
            )

    def open(self, record: Record) -> pd.DataFrame:
        """The key, for a rater who has finished: rows ``item, dictionary, kind, feature``.

        Raises:
            UserError: the rater has not finished, or the record is of another study.
        """
        if record.unrated or not record.finished:
            raise UserError(
                f"{record.rater}.json: expected finished ratings of all {record.n_items} items "
                f"before the key is opened, {len(record.unrated)} are missing; rate the rest as "
                f"{record.rater} and press Finish"
            )
        self.check(record)
        key = pd.DataFrame(self._key, columns=list(Source._fields))
        key.insert(0, "item", np.arange(1, len(key) + 1))
        return key


def create_study(
    dictionaries: Sequence[RatedDictionary],
    text: Text,
    tokenizer: Any,
    *,
    n_features: int,
    seed: int,
) -> Study:
    """Draw live features of a transcoder and an MLP-in SAE and shuffle them together (Section 4).

    Args:
        dictionaries: one of each of :data:`RATED_KINDS`.
        text: what their examples refer to.
        tokenizer: of the model.
        n_features: of each dictionary.
        seed: of the draw and the order.

    Raises:
        UserError: a dictionary has fewer live features.
    """
    drawn = [_draw(dictionary, n_features, seed) for dictionary in dictionaries]
    rows = text.rows.numpy()
    shown: list[tuple[Item, Source]] = []
    for pair in zip(*drawn, strict=True):
        n_top = min(N_TOP, *(len(feature.top) for feature in pair))
        n_sampled = min(N_SAMPLED, *(len(feature.others) for feature in pair))
        for feature in pair:
            spread = np.linspace(0, len(feature.others) - 1, n_sampled).round().astype(int)
            places = (feature.top[:n_top], feature.others[spread])
            item = Item(*(tuple(_example(rows, at, tokenizer) for at in part) for part in places))
            shown.append((item, feature.source))
    # Items that look alike come in any order, but not in one that says which kind is first.
    shown.sort(key=lambda both: (_lot(seed, "order", both[0]), _lot(seed, "alike", both[1])))
    items, key = zip(*shown, strict=True)
    return Study(items, key)


class _Drawn(NamedTuple):
    source: Source
    top: Int[np.ndarray, "example 2"]
    """Rows and positions, the strongest first."""
    others: Int[np.ndarray, "example 2"]
    """Drawn ones of other rows, likewise."""


def _draw(dictionary: RatedDictionary, n_features: int, seed: int) -> list[_Drawn]:
    live = live_features(dictionary.observed)["feature"].to_numpy()
    if len(live) < n_features:
        raise UserError(
            f"{dictionary.name}: expected at least {n_features} live features to rate, found "
            f"{len(live)}; raise interpretability.text_contexts in the scale file"
        )
    examples = dictionary.observed.examples
    examples = examples[examples["feature"].isin(live)].sort_values(["feature", "kind", "rank"])
    drawn = []
    for feature, its in examples.groupby("feature"):
        at, is_top = its[["row", "position"]].to_numpy(), (its["kind"] == "top").to_numpy()
        others = at[~is_top & ~np.isin(at[:, 0], at[is_top, 0])]
        lot = _lot(seed, "draw", np.column_stack([is_top, at]).tolist())
        source = Source(dictionary.name, dictionary.kind, int(cast("int", feature)))
        drawn.append((lot, _Drawn(source, at[is_top], others)))
    return [one for _, one in sorted(drawn, key=lambda both: both[0])[:n_features]]


def _lot(seed: int, purpose: str, content: Any) -> str:
    return hashlib.sha256(json.dumps([seed, purpose, content]).encode()).hexdigest()


def _example(
    rows: Int[np.ndarray, "row position"], place: Int[np.ndarray, " 2"], tokenizer: Any
) -> Example:
    row, position = place
    tokens = rows[row].tolist()
    context = in_context(tokenizer, tokens, int(position), before=REACH, after=REACH)
    before, marked, after = map(visible, context)
    word = marked.lstrip()
    if not word:
        return Example(before.lstrip(), "␣" * len(marked) or "⟨nothing⟩", after)
    # The space before a word shows all the same, and lines break there.
    return Example((before + marked[: -len(word)]).lstrip(), word, after)


def visible(text: str) -> str:
    """A text with signs in place of line ends, and of what would not show."""
    return "".join(
        sign if sign.isprintable() else SIGNS.get(sign, f"⟨U+{ord(sign):04X}⟩") for sign in text
    )


def begin(study: Study, folder: Path, rater: str) -> Record:
    """Go on with a rater's file, or make one, with the commitment to the key.

    Raises:
        UserError: a bad name, or the file is damaged or of another study.
    """
    path = record_path(folder, rater)
    if not path.exists():
        nonce = secrets.token_hex(32)
        new = Record(
            rater=rater, n_items=len(study.items), nonce=nonce, commitment=study.commit(nonce)
        )
        save_record(folder, new)
    record = load_record(folder, rater)
    study.check(record)
    return record
