"""What the feature browser holds of each feature, as small as it can be.

Only the places of examples are kept from the pass over the text. The activations about them are
computed again, from the rows of the text that hold the examples, and kept as one digit for each
token. The text is kept once for all features (:mod:`~transcoders.interpretability.browser`).
"""

from collections.abc import Callable, Iterable, Sequence
from math import isnan, nan
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from transcoders.circuits.invariant import best_products, de_embeddings, direct_logits
from transcoders.circuits.labels import RULE, Label
from transcoders.circuits.replacement import ReplacementModel
from transcoders.dictionaries import SparseDictionary
from transcoders.interpretability.gather import Subject
from transcoders.models import mlp_activations
from transcoders.progress import progress_bar

BEFORE, AFTER = 16, 6
"""How many tokens are shown before and after a peak."""
N_TOP, PER_THIRD = 5, 1
"""How many of the best examples are shown, and of the random ones in each third by activation."""
THIRDS = ("upper", "middle", "lower")
GROUPS = ("Most active", *(f"Random examples: {third} third" for third in THIRDS))
N_TOKENS, N_NEAREST = 5, 4
"""How many tokens and features each list holds."""
N_PEAKS = 4
"""How many different tokens at peaks the table shows for each feature."""
DIGITS = np.array(list("0123456789abcdefghijklmnopqrstuvwxyz"))
"""Shares of a feature's largest activation, from none to all."""
BATCH = 8
LISTS = {
    "raises": "Logits it raises (DLA)",
    "lowers": "Logits it lowers (DLA)",
    "drives": "Embeddings that drive it (de-embedding)",
}
NO_LOGITS = (
    "No logits are shown: this dictionary writes back to the MLP's input, not to the residual "
    "stream, so its features move no logit directly."
)
NO_EMBEDDINGS = (
    "No de-embedding is shown: this dictionary does not read the residual stream, so embeddings do "
    "not drive its features directly."
)
Found = list[Label | None]
"""The label of each feature, if it has one."""
Columns = dict[str, list[Any]]
"""Values of some features, parallel, by what they are."""
Shown = Callable[[int], str]
"""The text of a token."""


class Examples:
    """The examples that are shown of some features, shaded as activations come in."""

    def __init__(self, subject: Subject, features: Sequence[int]) -> None:
        """Examples without shades.

        Args:
            subject: the dictionary.
            features: which features, ascending.
        """
        self.subject, self.features = subject, features
        self.known = subject.observed.features.set_index("feature").loc[list(features)]
        """What was observed of each feature."""
        self.chosen = _chosen(subject, features)
        """Each example: ``feature, group, row, position``."""
        self._by_row = dict(iter(self.chosen.groupby("row")[["feature", "position"]]))
        self.rows_left = set(self._by_row)
        """Numbers of the rows of the text whose examples have no shades yet."""
        self._largest = dict(self.known["largest"])
        self._shades: dict[tuple[int, int, int], tuple[int, str]] = {}

    def add(self, row: int, z: Float[np.ndarray, "position feature"]) -> None:
        """Shade the examples of a row by the activations of all features on it."""
        if row not in self.rows_left:
            return
        for feature, position in self._by_row[row].itertuples(index=False):
            of_feature = z[:, int(np.searchsorted(self.features, feature))]
            shades = _shades(of_feature, position, self._largest[feature])
            self._shades[feature, row, position] = shades
        self.rows_left.remove(row)

    def listed(self) -> list[list[tuple[int, int, int, int, str]]]:
        """Feature by feature, each example's group, row and position, and its shades.

        The shades are two values: the number of tokens before the peak that have a digit, and a
        text with a digit for each token from the first to the last active one of those shown.
        """
        found: dict[int, list[tuple[int, int, int, int, str]]] = {f: [] for f in self.features}
        for feature, group, row, position in self.chosen.itertuples(index=False):
            shades = self._shades[feature, row, position]
            found[feature].append((group, row, position, *shades))
        return list(found.values())


@torch.no_grad()
def look_again(
    replacement: ReplacementModel, wanted: Sequence[Examples], rows: Int[Tensor, "row position"]
) -> None:
    """Run the model once over all rows that hold examples without shades, and shade these.

    Args:
        replacement: the model that the dictionaries were trained on.
        wanted: the examples of each dictionary.
        rows: the text on which their features were observed.
    """
    left = [examples for examples in wanted if examples.rows_left]
    layers = sorted({examples.subject.site.layer for examples in left})
    numbers = torch.tensor(sorted(set().union(*(examples.rows_left for examples in left))))
    with progress_bar(len(numbers), "looking at examples again", "rows") as bar:
        for own in numbers.long().split(BATCH) if len(numbers) else []:
            tokens = rows[own].to(replacement.W_O.device)
            activations = mlp_activations(replacement.model, tokens, layers)
            for examples in left:
                dictionary = examples.subject.dictionary
                of_site = activations[examples.subject.site.layer]
                read = getattr(of_site, dictionary.traits.reads)
                z = dictionary.encode(read)[:, :, list(examples.features)].cpu().numpy()
                z[:, : replacement.first_position] = 0
                for row, of_row in zip(own.tolist(), z, strict=True):
                    examples.add(row, of_row)
            bar.update(len(own))


def overview(
    examples: Examples, rows: Int[Tensor, "row position"], labels: Found, shown: Shown
) -> Columns:
    """What the table of features says, and what is searched.

    Args:
        examples: of the features.
        rows: the text on which they were observed.
        labels: what each feature is called.
        shown: the text of a token.
    """
    known = examples.known
    best = examples.chosen[examples.chosen["group"] == 0]
    peaks: dict[int, dict[str, None]] = {feature: {} for feature in examples.features}
    for feature, row, position in best[["feature", "row", "position"]].itertuples(index=False):
        peaks[feature][shown(int(rows[row, position]))] = None
    return {
        "feature": list(examples.features),
        "name": [label.text if label and label.is_trusted else "" for label in labels],
        "score": _shortened([label.score if label else nan for label in labels]),
        "frequency": _shortened(known["frequency"]),
        "largest": _shortened(known["largest"]),
        "peaks": [list(its)[:N_PEAKS] for its in peaks.values()],
    }  # fmt: skip


def details(
    replacement: ReplacementModel, examples: Examples, labels: Found, shown: Shown
) -> Columns:
    """What a reader sees when they open a feature.

    Args:
        replacement: the model that the dictionary was trained on.
        examples: of the features, shaded.
        labels: what each feature is called.
        shown: the text of a token.
    """
    dictionary, known = examples.subject.dictionary, examples.known
    bars = [_bars(histogram) for histogram in known["histogram"]]
    chosen = torch.tensor(list(examples.features), dtype=torch.long)
    return {
        "why": [f"{its.by}: {its.why}" if its and its.by != RULE else "" for its in labels],
        "mean": _shortened(known["mean"]),
        "first_bin": [first for first, _ in bars],
        "bars": [counts for _, counts in bars],
        "examples": examples.listed(),
        "nearest": _nearest(dictionary, chosen),
        **_lists(replacement, dictionary, chosen, shown),
    }  # fmt: skip


def absent(dictionary: SparseDictionary) -> list[str]:
    """Why some lists are not shown for a dictionary."""
    writes, reads = dictionary.traits.imitates == "mlp_out", dictionary.traits.reads == "mlp_in"
    return [*([] if writes else [NO_LOGITS]), *([] if reads else [NO_EMBEDDINGS])]


def _chosen(subject: Subject, features: Sequence[int]) -> pd.DataFrame:
    """The examples that are shown: ``feature, group, row, position``."""
    examples = subject.observed.examples
    examples = examples[examples["feature"].isin(features)].copy()
    of_kind = examples.groupby(["feature", "kind"])["rank"]
    third = (examples["rank"] - 1) * 3 // of_kind.transform("size")
    examples["group"] = np.where(examples["kind"] == "top", 0, third + 1)
    order = examples.groupby(["feature", "group"]).cumcount()
    kept = examples[order < np.where(examples["group"] == 0, N_TOP, PER_THIRD)]
    return kept.sort_values(["feature", "group", "rank"])[["feature", "group", "row", "position"]]


def _shades(z: Float[np.ndarray, " position"], peak: int, largest: float) -> tuple[int, str]:
    """Digits of the tokens about a peak, and how many come before it."""
    start = max(peak - BEFORE, 1)
    shares = z[start : peak + AFTER + 1] / largest
    # Rounded up: a token that is active at all has a digit above 0.
    levels = np.ceil(shares * (len(DIGITS) - 1) - 1e-4).astype(int).clip(0, len(DIGITS) - 1)
    first = min(np.flatnonzero(levels), default=0)
    return peak - start - int(first), "".join(DIGITS[levels[first:]]).rstrip("0")


def _lists(
    replacement: ReplacementModel, dictionary: SparseDictionary, chosen: Int[Tensor, " feature"],
    shown: Shown,
) -> Columns:  # fmt: skip
    """What weights alone say about each feature: tokens and values."""
    found = {}
    # What is not written to the residual stream moves no logit directly, and what is not read from
    # it has no de-embedding.
    if dictionary.traits.imitates == "mlp_out":
        writes = dictionary.W_dec[chosen]
        found["raises"] = direct_logits(replacement, writes, N_TOKENS)
        found["lowers"] = direct_logits(replacement, writes, N_TOKENS, largest=False)
    if dictionary.traits.reads == "mlp_in":
        reads = replacement.centre(dictionary.W_enc[:, chosen].T)
        found["drives"] = de_embeddings(replacement, reads, N_TOKENS)
    return {
        name: [[(shown(token), _short(value, 2)) for token, value in row] for row in best.pairs()]
        for name, best in found.items()
    }


def _nearest(
    dictionary: SparseDictionary, chosen: Int[Tensor, " feature"]
) -> list[list[tuple[int, float]]]:
    """The features that write in the most similar directions, with the cosines."""
    W_dec = dictionary.W_dec
    directions = W_dec / W_dec.norm(dim=1, keepdim=True).clamp_min(1e-12)
    found = best_products(directions[chosen], directions, N_NEAREST + 1).pairs()
    return [
        [(other, round(cosine, 2)) for other, cosine in pairs if other != feature][:N_NEAREST]
        for feature, pairs in zip(chosen.tolist(), found, strict=True)
    ]


def _bars(histogram: Int[np.ndarray, " bin"]) -> tuple[int, list[int]]:
    """The first bin with a count, and the counts from it to the last one."""
    filled = np.flatnonzero(histogram)
    if not len(filled):
        return 0, []
    return int(filled[0]), histogram[filled[0] : filled[-1] + 1].tolist()


def _shortened(values: Iterable[float]) -> list[float | None]:
    """Each with three significant digits; None for what is not known."""
    return [None if isnan(value) else _short(value) for value in values]


def _short(value: float, digits: int = 3) -> float:
    return float(f"{value:.{digits}g}")
