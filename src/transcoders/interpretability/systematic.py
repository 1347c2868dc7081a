"""Blind studies of many features at once: predict from weights, then look, and score.

For features drawn at random, the tokens that should make them active are predicted from weights
alone (:mod:`~transcoders.interpretability.predictions`). Then their examples are revealed, and two
scores are taken:

- **precision**: the share of a feature's best examples whose peak is on one of the k tokens with
  the largest scores; for earlier positions, the share with one of them before the peak;
- **correlation**: Spearman's, of score with activation, over the tokens of all its examples and of
  the background, where it is mostly silent.

The **control** is the same with the prediction of another feature of the same dictionary. It is the
score of someone who knows what features are like, but not which one this is.
"""

from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from scipy import stats
from torch import Tensor

from transcoders.circuits.replacement import ReplacementModel
from transcoders.interpretability.automatic import live_features
from transcoders.interpretability.gather import Observed, Subject, Text
from transcoders.interpretability.predictions import (
    METHODS,
    Vocabulary,
    score_tokens,
    vectors_of_heads,
)
from transcoders.statistics import mean_of_features

K = 10
"""Tokens predicted."""
BEFORE = 8
"""Earlier positions at which a predicted token counts."""
HEADS = "heads"
"""The method that predicts tokens at earlier positions."""
METHOD_ORDER = pd.CategoricalDtype([*METHODS, HEADS], ordered=True)
SHOWN = 5
"""Predicted tokens that the table shows."""
COLUMNS = [
    "dictionary", "layer", "l0", "feature", "frequency", "method", "predicted", "precision",
    "precision_control", "correlation", "correlation_control",
]  # fmt: skip
PARTS = ("", "_control", "_gain", "_gain_low", "_gain_high")
SUMMARY_COLUMNS = (
    "by", "group", "method", "n_features",
    *(f"{score}{part}" for score in ("precision", "correlation") for part in PARTS),
)  # fmt: skip


class ActiveTokens:
    """A feature's examples, which are looked at after predicting."""

    def __init__(self, observed: Observed, text: Text, feature: int) -> None:
        examples = observed.examples[observed.examples["feature"] == feature]
        tokens = text.rows.numpy()
        top = examples.loc[examples["kind"] == "top", ["row", "position"]].to_numpy()
        self.peaks = [{int(tokens[row, at])} for row, at in top]
        self.before = [set(tokens[row, max(at - BEFORE, 0) : at].tolist()) for row, at in top]
        """The token at the peak of each of its best examples, and those before it."""
        places = examples.drop_duplicates("row")
        row, position = np.vstack([places[["row", "position"]], text.background]).T
        self.tokens: Int[np.ndarray, " place"] = tokens[row, position]
        self.activations: Float[np.ndarray, " place"] = np.concatenate(
            [places["activation"], observed.background[:, feature]]
        )

    def precision(self, predicted: Int[np.ndarray, " k"], method: str) -> float:
        """The share of the best examples with a predicted token where the method looks."""
        seen = self.before if method == HEADS else self.peaks
        return float(np.mean([not tokens.isdisjoint(predicted.tolist()) for tokens in seen]))

    def correlation(self, scores: Float[Tensor, " token"]) -> float:
        """The correlation of scores with activations; NaN if one of them never varies."""
        with np.errstate(invalid="ignore"):
            return float(stats.spearmanr(scores[self.tokens].numpy(), self.activations).statistic)


def study_features(
    replacement: ReplacementModel,
    vocabulary: Vocabulary,
    subject: Subject,
    text: Text,
    tokenizer: Any,
    *,
    n_features: int,
    seed: int,
) -> pd.DataFrame:
    """Blind studies of some features of a transcoder.

    Args:
        replacement: the model, with a transcoder at layer 0.
        vocabulary: the embeddings of the model's tokens.
        subject: a transcoder above layer 0, and what its features do on the text. Until all
            predictions are made, only which features are live is looked at.
        text: the text.
        tokenizer: the model's tokenizer.
        n_features: how many features to study, drawn at random from the live ones.
        seed: the seed of the draw.

    Returns:
        Rows ``dictionary, layer, l0, feature, frequency, method, predicted, precision,
        precision_control, correlation, correlation_control``; for the method ``heads``, tokens
        before the peak are predicted, and there is no correlation. L0 is the dictionary's, over the
        text. No rows where fewer than two features are live.
    """
    layer, observed = subject.site.layer, subject.observed
    live = live_features(observed)
    if len(live) < 2:  # there is no other feature to compare with
        return pd.DataFrame(columns=COLUMNS)
    random = np.random.default_rng((seed, layer))
    features = random.choice(live["feature"], min(n_features, len(live)), replace=False)
    vectors = replacement.centre(subject.dictionary.W_enc[:, torch.from_numpy(features)].T)
    predictions: dict[str, Float[Tensor, "feature token"]] = {
        method: score_tokens(replacement, vocabulary, vectors, method).cpu() for method in METHODS
    }
    of_heads = [_scores_of_heads(replacement, vocabulary, vector, layer) for vector in vectors]
    predictions[HEADS] = torch.stack(of_heads).cpu()

    revealed = [ActiveTokens(observed, text, int(feature)) for feature in features]
    frequency = live.set_index("feature")["frequency"]
    rows: list[dict[str, Any]] = []
    for i, (feature, found) in enumerate(zip(features.tolist(), revealed, strict=True)):
        common = {
            "dictionary": subject.name, "layer": layer, "l0": observed.features["frequency"].sum(),
            "feature": feature, "frequency": frequency[feature],
        }  # fmt: skip
        for method, scores in predictions.items():
            control = scores[(i + 1) % len(features)]
            scored = _scored(found, method, scores[i], control, tokenizer)
            rows.append(common | {"method": method} | scored)
    return pd.DataFrame(rows, columns=COLUMNS)


def _scored(
    found: ActiveTokens,
    method: str,
    scores: Float[Tensor, " token"],
    control: Float[Tensor, " token"],
    tokenizer: Any,
) -> dict[str, Any]:
    """How well a prediction does, and another feature's in its place."""
    shown = scores.topk(K).indices[:SHOWN].tolist()
    scored: dict[str, Any] = {"predicted": " | ".join(tokenizer.decode([t]) for t in shown)}
    for part, each in (("", scores), ("_control", control)):
        scored[f"precision{part}"] = found.precision(each.topk(K).indices.numpy(), method)
        if method != HEADS:
            scored[f"correlation{part}"] = found.correlation(each)
    return scored


def _scores_of_heads(
    replacement: ReplacementModel,
    vocabulary: Vocabulary,
    vector: Float[Tensor, " d_model"],
    layer: int,
) -> Float[Tensor, " token"]:
    """The largest score of each token through any of the heads that matter most."""
    pulled = vectors_of_heads(replacement, vocabulary, vector, layer)
    scores = score_tokens(replacement, vocabulary, pulled, "layer 0")
    scores = (scores - scores.mean(dim=1, keepdim=True)) / scores.std(dim=1, keepdim=True)
    return scores.amax(dim=0)


def summarise_studies(studies: pd.DataFrame, *, seed: int) -> pd.DataFrame:
    """Means over features, with 95% intervals of what is gained over the control.

    Features are taken together (``all``), by layer, and by thirds of their dictionary's L0 and of
    their own frequency.

    Returns:
        Rows ``by, group, method, n_features``, and for each score its mean, that of the control,
        and ``_gain, _gain_low, _gain_high``.
    """
    if studies.empty:
        return pd.DataFrame(columns=SUMMARY_COLUMNS)
    groupings = {
        "all": pd.Series("all", index=studies.index),
        "layer": studies["layer"],
        "L0": _thirds(studies["l0"]),
        "frequency": _thirds(studies["frequency"]),
    }
    rows = []
    for by, groups in groupings.items():
        for (group, method), chosen in studies.groupby(
            [groups, studies["method"].astype(METHOD_ORDER)], observed=True
        ):
            row = {"by": by, "group": group, "method": method, "n_features": len(chosen)}
            for score in ("precision", "correlation"):
                row |= _gain(chosen, score, seed)
            rows.append(row)
    return pd.DataFrame(rows)


def _thirds(values: "pd.Series[float]") -> "pd.Series[Any]":
    """Lower, middle and upper third by rank. Equal values are in the same third."""
    place = (values.rank() - 0.5) / len(values)
    return pd.cut(place, [0, 1 / 3, 2 / 3, 1], labels=["low", "middle", "high"])


def _gain(studies: pd.DataFrame, score: str, seed: int) -> dict[str, float]:
    """Means of a score and its control, and of their difference with its interval."""
    both = studies[["layer", "feature", score, f"{score}_control"]].dropna()
    own, control = both[score], both[f"{score}_control"]
    gain = mean_of_features(both, own - control, seed=seed)[:3] if len(both) else [np.nan] * 3
    names = [f"{score}{part}" for part in PARTS]
    return dict(zip(names, [own.mean(), control.mean(), *gain], strict=True))
