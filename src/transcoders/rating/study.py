"""A blind study of two dictionaries and its sealed key.

Features of a transcoder and of an MLP-in SAE are shown as items 1, 2, …. The rater must not be able
to tell which dictionary an item comes from. So what a rater sees depends only on the seed and on
*where* features are active. If the dictionaries are exchanged, their features renumbered or their
activations rescaled, every item stays the same and in the same place.

1. From each dictionary, n live features are drawn: those with the smallest hashes of seed and
   examples. (A random generator would have to be told which dictionary comes first.)
2. Each feature of one dictionary is paired with a feature of the other. Both features of a pair
   show the same number of examples, as many as the rarer one has. Otherwise a short list would give
   away an SAE wherever SAEs have rarer features. Rare features are not left out, since that would
   be another population.
3. All items are sorted by a hash of the seed and of what they show.
4. A rater's file records the SHA-256 of a nonce, the key and the items before the first rating, so
   that neither key nor items can be exchanged later. The key is not on disk. It is computed again
   from the same tables, and it is opened only when the rater has rated everything and finished.
"""

import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd
from jaxtyping import Int

from transcoders.config import RATED_KINDS, Kind, Scale
from transcoders.context import Context, in_context
from transcoders.errors import UserError
from transcoders.files import read_json
from transcoders.interpretability.automatic import live_features
from transcoders.interpretability.gather import Observed, Text, load_observed, load_text
from transcoders.layout import Layout
from transcoders.models import load_tokenizer
from transcoders.rating.records import PERSON, Record, load_record, record_path, save_record

N_TOP = 12
N_SAMPLED = 6
"""How many examples are shown at most: of those where a feature is most active, and of others."""
REACH = 10
"""How many tokens are shown on each side of the peak."""
SIGNS = {"\n": "⏎", "\r": "␍", "\t": "⇥", "\xa0": "\xa0"}


class Source(NamedTuple):
    """Which feature an item shows: an entry of the key."""

    kind: Kind
    feature: int


class Item(NamedTuple):
    """All that a rater is shown of one feature."""

    top: tuple[Context, ...]
    sampled: tuple[Context, ...]
    """Examples in other rows than the best ones, spread over activation, the strongest first."""


@dataclass(frozen=True)
class Study:
    """Items in the order in which they are shown, and the sealed key to them."""

    items: tuple[Item, ...]
    weights: list[str]
    """SHA-256 of the weights of both dictionaries."""
    _key: tuple[Source, ...] = field(repr=False)

    def commit(self, nonce: str) -> str:
        """SHA-256, in hexadecimal, of a nonce, the key and all that is shown."""
        sealed = json.dumps([nonce, self._key, self.items])
        return hashlib.sha256(sealed.encode()).hexdigest()

    def check(self, record: Record) -> None:
        """Refuse the record of another study.

        Raises:
            UserError: it is about other weights, or its commitment does not fit this key and these
                items.
        """
        if record.weights != self.weights:
            raise UserError(
                f"{record.rater}.json: these ratings are of dictionaries with other weights; rate "
                "under another name, or bring back the dictionaries that were rated"
            )
        if record.commitment != self.commit(record.nonce):
            raise UserError(
                f"{record.rater}.json: its commitment is not to these {len(self.items)} items; the "
                "seed, the examples, the text or this software changed since "
                f"{record.rater} began: restore them, or move the file away and rate anew"
            )

    def open(self, record: Record) -> pd.DataFrame:
        """Open the key for a rater who has finished.

        Returns:
            What the rater said: rows ``item, kind, feature, verdict, context_free, note``.

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
        said = [
            {"item": item, **source._asdict(), **record.rating(item).model_dump()}
            for item, source in enumerate(self._key, start=1)
        ]
        return pd.DataFrame(said)


def load_study(scale: Scale, layout: Layout) -> Study:
    """The study of the rated site's transcoder and MLP-in SAE.

    Raises:
        UserError: a file is missing, or a dictionary has too few live features.
    """
    wanted = scale.studied
    names = {kind: scale.rated(kind).name for kind in RATED_KINDS}
    observed = {kind: load_observed(layout.observed, name) for kind, name in names.items()}
    tokenizer = load_tokenizer(layout.model(wanted.rated_site.model))
    settings = [read_json(layout.dictionary(name) / "cfg.json") for name in names.values()]
    return create_study(
        observed, load_text(layout.observed), tokenizer, n_features=wanted.rated_features,
        weights=[its["weights_sha256"] for its in settings], seed=scale.seed,
    )  # fmt: skip


def create_study(
    observed: Mapping[Kind, Observed],
    text: Text,
    tokenizer: Any,
    *,
    weights: list[str],
    n_features: int,
    seed: int,
) -> Study:
    """Draw live features of a transcoder and an MLP-in SAE and shuffle them together (Section 4).

    Args:
        observed: what the features of each of :data:`RATED_KINDS` do on the text.
        text: the text in which their examples are.
        tokenizer: the model's tokenizer.
        weights: SHA-256 of the weights of both dictionaries.
        n_features: how many features of each dictionary are drawn.
        seed: the seed of the draw and the order.

    Raises:
        UserError: a dictionary has fewer live features.
    """
    drawn = [_draw(kind, its, n_features, seed) for kind, its in observed.items()]
    shown: list[tuple[Item, Source]] = []
    for pair in zip(*drawn, strict=True):
        n_top = min(N_TOP, *(len(feature.top) for feature in pair))
        n_sampled = min(N_SAMPLED, *(len(feature.others) for feature in pair))
        for source, top, others in pair:
            spread = np.linspace(0, len(others) - 1, n_sampled).round().astype(int)
            places = (top[:n_top], others[spread])
            shown.append((Item(*(_examples(text, at, tokenizer) for at in places)), source))
    # Items that look alike may come in any order that does not always put the same kind first.
    shown.sort(key=lambda both: (_lot(seed, "order", both[0]), _lot(seed, "alike", both[1])))
    items, key = zip(*shown, strict=True)
    return Study(items, weights, key)


class _Drawn(NamedTuple):
    source: Source
    top: Int[np.ndarray, "example 2"]
    """Rows and positions of the best examples, the strongest first."""
    others: Int[np.ndarray, "example 2"]
    """The same for the sampled examples in other rows."""


def _draw(kind: Kind, observed: Observed, n_features: int, seed: int) -> list[_Drawn]:
    live = live_features(observed)["feature"]
    if len(live) < n_features:
        raise UserError(
            f"{kind}: expected at least {n_features} live features to rate, found {len(live)}; "
            "raise interpretability.text_contexts in the scale file, or lower its l1_coefficient"
        )
    examples = observed.examples[observed.examples["feature"].isin(live)]
    drawn = []
    for feature, its in examples.sort_values(["feature", "kind", "rank"]).groupby("feature"):
        at, is_top = its[["row", "position"]].to_numpy(), (its["kind"] == "top").to_numpy()
        others = at[~is_top & ~np.isin(at[:, 0], at[is_top, 0])]
        lot = _lot(seed, "draw", np.column_stack([is_top, at]).tolist())
        drawn.append((lot, _Drawn(Source(kind, int(cast("int", feature))), at[is_top], others)))
    return [one for _, one in sorted(drawn, key=lambda both: both[0])[:n_features]]


def _lot(seed: int, purpose: str, content: Any) -> str:
    return hashlib.sha256(json.dumps([seed, purpose, content]).encode()).hexdigest()


def _examples(
    text: Text, places: Int[np.ndarray, "example 2"], tokenizer: Any
) -> tuple[Context, ...]:
    """Places as texts that are fit to be seen."""
    shown = []
    for row, position in places.tolist():
        tokens = text.rows[row].tolist()
        context = in_context(tokenizer, tokens, position, before=REACH, after=REACH)
        before, marked, after = map(visible, context)
        word = marked.lstrip()
        if word:
            # The space before a word is moved out of the mark: it still shows, and lines may break.
            before += marked[: -len(word)]
        shown.append(Context(before.lstrip(), word or "␣" * len(marked) or "⟨nothing⟩", after))
    return tuple(shown)


def visible(text: str) -> str:
    """A text with symbols in place of line ends and of what would not show."""
    return "".join(
        sign if sign.isprintable() else SIGNS.get(sign, f"⟨U+{ord(sign):04X}⟩") for sign in text
    )


def begin(study: Study, folder: Path, rater: str, language_model: str | None = None) -> Record:
    """Go on with a rater's file, or make one that commits to the key.

    Raises:
        UserError: a bad name, or the file is damaged, of another study or of another kind of rater.
    """
    if language_model in ("", PERSON):
        raise UserError(
            f"--language-model: expected a name, found {language_model!r}; leave it out if a "
            "person rates"
        )
    if not record_path(folder, rater).exists():
        nonce = secrets.token_hex(32)
        new = Record(
            rater=rater, language_model=language_model, weights=study.weights,
            n_items=len(study.items), nonce=nonce, commitment=study.commit(nonce),
        )  # fmt: skip
        save_record(folder, new)
    record = load_record(folder, rater)
    study.check(record)
    if record.language_model != language_model:
        raise UserError(
            f"{rater}.json: begun by {record.by}, found --language-model {language_model}; "
            "choose another name, since people and language models are counted apart"
        )
    return record
