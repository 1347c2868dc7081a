"""Automatic measures of interpretability. None of them is a human's judgement.

Of every live feature, from its examples (those with the largest peaks and those drawn at random):

- **single-token share**: the share of its best examples whose peak is on their most common token;
  1 is what the paper's raters call context-free;
- **token entropy**: of the tokens at those peaks, in bits;
- **rule accuracy**: a small decision tree learns from half of its examples and half of the
  background tokens, by the tokens up to three positions away, to tell where the feature is active.
  Balanced accuracy on the other halves: 0.5 is guessing.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy import stats

from transcoders.interpretability.gather import Observed, Text
from transcoders.intervals import mean_interval

LIVE_FREQUENCY = 1e-4
LIVE_EXAMPLES = 4
"""The paper's raters saw features more frequent than this, with at least so many examples."""
RULE_EXAMPLES = 8
"""Fewer examples cannot be halved into something to learn from and something to test on."""
REACH = 3
"""Positions before and after, whose tokens a rule may use."""
OFFSETS = np.arange(-REACH, REACH + 1)
OUTSIDE = -1
"""Stands for the token at a position that a row does not have."""
MEASURES = ("single_token_share", "token_entropy", "rule_accuracy")


class Windows(NamedTuple):
    """Tokens around some places of a text."""

    tokens: Int[np.ndarray, "place offset"]

    @classmethod
    def around(
        cls, text: Int[np.ndarray, "row position"], row: np.ndarray, position: np.ndarray
    ) -> "Windows":
        """Those at :data:`OFFSETS` from each place."""
        at = position[:, None] + OFFSETS
        inside = (at >= 0) & (at < text.shape[1])
        return cls(np.where(inside, text[row[:, None], at.clip(0, text.shape[1] - 1)], OUTSIDE))


def live_features(observed: Observed) -> pd.DataFrame:
    """The rows of ``features`` that a rater would be shown."""
    n_examples = observed.examples[observed.examples["kind"] == "top"].groupby("feature").size()
    enough = n_examples.reindex(observed.features["feature"], fill_value=0).to_numpy()
    live = (observed.features["frequency"] > LIVE_FREQUENCY) & (enough >= LIVE_EXAMPLES)
    return observed.features[live]


def measure_features(observed: Observed, text: Text, *, seed: int) -> pd.DataFrame:
    """Rows ``feature, measure, value`` for all live features; features without a value left out."""
    from sklearn.tree import DecisionTreeClassifier

    tokens = text.rows.numpy()
    background = Windows.around(tokens, *text.background.numpy().T).tokens
    silent = (observed.background == 0).numpy()
    by_feature = dict(iter(observed.examples.groupby("feature")))
    rows: list[tuple[int, str, float]] = []
    for feature in live_features(observed)["feature"]:
        examples = by_feature[feature]
        top = examples[examples["kind"] == "top"]
        peaks = tokens[top["row"], top["position"]]
        shares = np.unique(peaks, return_counts=True)[1] / len(peaks)
        rows.append((feature, "single_token_share", float(shares.max())))
        rows.append((feature, "token_entropy", float(stats.entropy(shares, base=2))))
        places = examples.drop_duplicates("row")
        silent_places = background[silent[:, feature]]
        if len(places) < RULE_EXAMPLES or len(silent_places) < 2:  # one to learn from, one to test
            continue
        random = np.random.default_rng((seed, feature))
        active = Windows.around(tokens, places["row"].to_numpy(), places["position"].to_numpy())
        halves = [
            _halves(active.tokens, random),
            _halves(silent_places, random),
        ]
        learn, test = ([half[part] for half in halves] for part in (0, 1))
        tree = DecisionTreeClassifier(
            max_depth=REACH, class_weight="balanced", random_state=int(random.integers(2**31))
        )
        questions = _questions(learn[0])
        tree.fit(
            np.vstack([_answers(part, questions) for part in learn]),
            np.repeat([1, 0], [len(part) for part in learn]),
        )
        found = [tree.predict(_answers(part, questions)) for part in test]
        accuracy = (found[0].mean() + 1 - found[1].mean()) / 2
        rows.append((feature, "rule_accuracy", float(accuracy)))
    return pd.DataFrame(rows, columns=["feature", "measure", "value"])


def _halves(windows: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    order = random.permutation(len(windows))
    return windows[order[::2]], windows[order[1::2]]


def _questions(windows: Int[np.ndarray, "place offset"]) -> Int[np.ndarray, "question 2"]:
    """What a rule may ask: is this token at this offset? Those that learning examples suggest.

    At least two of them must share it, or it could only be learned by heart.
    """
    offset = np.broadcast_to(np.arange(windows.shape[1]), windows.shape)
    pairs = np.stack([offset.ravel(), windows.ravel()], axis=1)
    found, counts = np.unique(pairs, axis=0, return_counts=True)
    chosen = found[(counts > 1) & (found[:, 1] != OUTSIDE)]
    # With nothing in common, one question that every window answers with no.
    return chosen if len(chosen) else np.array([[REACH, -2]])


def _answers(
    windows: Int[np.ndarray, "place offset"], questions: Int[np.ndarray, "question 2"]
) -> Float[np.ndarray, "place question"]:
    return (windows[:, questions[:, 0]] == questions[:, 1]).astype(np.float32)


def summarise(measures: pd.DataFrame) -> pd.DataFrame:
    """Rows ``dictionary, measure, n_features, mean, low, high``: 95% intervals over features."""
    rows = []
    for (dictionary, measure), group in measures.groupby(["dictionary", "measure"], sort=False):
        rows.append((dictionary, measure, len(group), *mean_interval(group["value"].to_numpy())))
    return pd.DataFrame(
        rows, columns=["dictionary", "measure", "n_features", "mean", "low", "high"]
    )
