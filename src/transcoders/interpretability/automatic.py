"""Measures of interpretability that need no person. None of them is a human judgement.

They look at each live feature's examples: those with the largest peaks and a random sample.

- **single-token share**: the share of the best examples whose peak is on their most common token.
  A feature with a share of 1 is what the paper's raters call context-free.
- **token entropy**: the entropy of the tokens at those peaks, in bits.
- **rule accuracy**: a small decision tree learns to tell where the feature is active from the
  tokens up to three positions away. It learns from half of the examples and half of the background
  tokens. The measure is its balanced accuracy on the other halves; guessing gives 0.5.
"""

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy import stats

from transcoders.interpretability.gather import Observed, Text
from transcoders.statistics import mean

LIVE_FREQUENCY = 1e-4
LIVE_EXAMPLES = 4
"""The paper's raters saw features that are more frequent than this and have this many examples."""
RULE_EXAMPLES = 8
"""A feature needs this many examples: one half to learn a rule from, the other to test it."""
REACH = 3
"""A rule may use the tokens at most this many positions before or after."""
OFFSETS = np.arange(-REACH, REACH + 1)
OUTSIDE = -1
"""Stands for the token at a position outside the row."""
MEASURES = ("single_token_share", "token_entropy", "rule_accuracy")
FREQUENCY = "frequency"
"""Stands beside the measures, so that features can be matched on how often they are active."""


def windows(
    text: Int[np.ndarray, "row position"], places: Int[np.ndarray, "place 2"]
) -> Int[np.ndarray, "place offset"]:
    """The tokens at :data:`OFFSETS` from each place (row, position) of a text."""
    row, position = places.T
    at = position[:, None] + OFFSETS
    inside = (at >= 0) & (at < text.shape[1])
    return np.where(inside, text[row[:, None], at.clip(0, text.shape[1] - 1)], OUTSIDE)


def live_features(observed: Observed) -> pd.DataFrame:
    """The rows of ``features`` that are shown to raters."""
    n_examples = observed.examples[observed.examples["kind"] == "top"].groupby("feature").size()
    enough = n_examples.reindex(observed.features["feature"], fill_value=0).to_numpy()
    live = (observed.features["frequency"] > LIVE_FREQUENCY) & (enough >= LIVE_EXAMPLES)
    return observed.features[live]


def measure_features(observed: Observed, text: Text, *, seed: int) -> pd.DataFrame:
    """Rows ``feature, measure, value`` for all live features; a feature may lack a value."""
    tokens = text.rows.numpy()
    background = windows(tokens, text.background.numpy())
    silent = (observed.background == 0).numpy()
    by_feature = dict(iter(observed.examples.groupby("feature")))
    rows: list[tuple[int, str, float]] = []
    live = live_features(observed)
    for feature, frequency in zip(live["feature"], live["frequency"], strict=True):
        examples = by_feature[feature]
        rows.append((feature, FREQUENCY, float(frequency)))
        top = examples[examples["kind"] == "top"]
        peaks = tokens[top["row"], top["position"]]
        shares = np.unique(peaks, return_counts=True)[1] / len(peaks)
        rows.append((feature, "single_token_share", float(shares.max())))
        rows.append((feature, "token_entropy", float(stats.entropy(shares, base=2))))
        places = examples.drop_duplicates("row")[["row", "position"]].to_numpy()
        silent_places = background[silent[:, feature]]
        if len(places) >= RULE_EXAMPLES and len(silent_places) >= 2:  # one for each half
            random = np.random.default_rng((seed, feature))
            accuracy = _rule_accuracy(windows(tokens, places), silent_places, random)
            rows.append((feature, "rule_accuracy", accuracy))
    table = pd.DataFrame(rows, columns=["feature", "measure", "value"])
    return table.astype({"feature": int, "value": float})  # an empty table has no types


def _rule_accuracy(
    active: Int[np.ndarray, "place offset"],
    silent: Int[np.ndarray, "other_place offset"],
    random: np.random.Generator,
) -> float:
    """Balanced accuracy, on the second halves, of a tree that learned from the first halves."""
    from sklearn.tree import DecisionTreeClassifier

    halves = [_halves(active, random), _halves(silent, random)]
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
    return float((found[0].mean() + 1 - found[1].mean()) / 2)


def _halves(places: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    order = random.permutation(len(places))
    return places[order[::2]], places[order[1::2]]


def _questions(active: Int[np.ndarray, "place offset"]) -> Int[np.ndarray, "question 2"]:
    """The questions that a rule may ask: is this token at this offset?

    They come from the examples to learn from. At least two of these must share the token there;
    otherwise the tree would learn single examples by heart.
    """
    offset = np.broadcast_to(np.arange(active.shape[1]), active.shape)
    pairs = np.stack([offset.ravel(), active.ravel()], axis=1)
    found, counts = np.unique(pairs, axis=0, return_counts=True)
    chosen = found[(counts > 1) & (found[:, 1] != OUTSIDE)]
    # If the examples share nothing, ask one question whose answer is always no.
    return chosen if len(chosen) else np.array([[REACH, -2]])


def _answers(
    places: Int[np.ndarray, "place offset"], questions: Int[np.ndarray, "question 2"]
) -> Float[np.ndarray, "place question"]:
    return (places[:, questions[:, 0]] == questions[:, 1]).astype(np.float32)


def summarise(measures: pd.DataFrame, *, seed: int) -> pd.DataFrame:
    """Rows ``dictionary, measure, n_features, mean, low, high``: 95% intervals over features."""
    shown = measures[measures["measure"].isin(MEASURES)]
    rows = [
        (*names, len(group), *mean(group["value"].to_numpy(), "features", seed=seed)[:3])
        for names, group in shown.groupby(["dictionary", "measure"], sort=False)
    ]
    columns = ["dictionary", "measure", "n_features", "mean", "low", "high"]
    return pd.DataFrame(rows, columns=columns)
