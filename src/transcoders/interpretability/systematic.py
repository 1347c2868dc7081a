"""Blind studies of many features at once: predict from weights, then look, and score.

For features drawn at random, the tokens that should make them active are predicted from weights
alone (:mod:`~transcoders.interpretability.predictions`). Then their examples are revealed, and two
scores are taken:

- **precision**: the share of a feature's best examples whose peak is on one of the k tokens with
  the largest scores; for earlier positions, the share with one of them before the peak;
- **correlation**: Spearman's, of score with activation, over the tokens of all its examples and of
  the background, where it is mostly silent.

The **control** is the same with the prediction of another feature of the same dictionary: what
would be scored by knowing what features are like, but not which one it is.
"""

from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from scipy import stats
from torch import Tensor

from transcoders.circuits.replacement import ReplacementModel
from transcoders.dictionaries import SparseDictionary
from transcoders.interpretability.automatic import live_features
from transcoders.interpretability.gather import Observed, Text
from transcoders.interpretability.predictions import (
    METHODS,
    Vocabulary,
    read_vocabulary,
    score_tokens,
    vectors_of_heads,
)
from transcoders.intervals import mean_interval

K = 10
"""Tokens predicted."""
BEFORE = 8
"""Earlier positions at which a predicted token counts."""
METHOD_ORDER = pd.CategoricalDtype([*METHODS, "heads"], ordered=True)
SHOWN = 5
"""Predicted tokens that the table shows."""


class ActiveTokens:
    """What is looked at after predicting: a feature's examples."""

    def __init__(self, observed: Observed, text: Text, feature: int) -> None:
        examples = observed.examples[observed.examples["feature"] == feature]
        top = examples[examples["kind"] == "top"]
        tokens = text.rows.numpy()
        self.peaks = tokens[top["row"], top["position"]]
        self.before = [
            set(tokens[row, max(position - BEFORE, 0) : position].tolist())
            for row, position in zip(top["row"], top["position"], strict=True)
        ]
        places = examples.drop_duplicates("row")
        background = text.background.numpy()
        self.tokens: Int[np.ndarray, " place"] = np.concatenate(
            [tokens[places["row"], places["position"]], tokens[background[:, 0], background[:, 1]]]
        )
        self.activations: Float[np.ndarray, " place"] = np.concatenate(
            [places["activation"].to_numpy(), observed.background[:, feature].numpy()]
        )

    def precision(self, predicted: Int[np.ndarray, " k"]) -> float:
        """Of predictions for the token at the peak."""
        return float(np.isin(self.peaks, predicted).mean())

    def precision_before(self, predicted: Int[np.ndarray, " k"]) -> float:
        """Of predictions for tokens before it."""
        wanted = set(predicted.tolist())
        return float(np.mean([bool(wanted & before) for before in self.before]))

    def correlation(self, scores: Float[Tensor, " token"]) -> float:
        """Of the scores with the activations; NaN if one of them never varies."""
        with np.errstate(invalid="ignore"):
            return float(stats.spearmanr(scores[self.tokens].numpy(), self.activations).statistic)


def study_features(
    replacement: ReplacementModel,
    name: str,
    layer: int,
    dictionary: SparseDictionary,
    observed: Observed,
    text: Text,
    tokenizer: Any,
    *,
    n_features: int,
    seed: int,
    vocabulary: Vocabulary | None = None,
) -> pd.DataFrame:
    """Blind studies of some features of a transcoder.

    Args:
        replacement: the model, with a transcoder at layer 0.
        name: of the dictionary.
        layer: at which it stands, above 0.
        dictionary: a transcoder.
        observed: what its features do on the text; only which ones are live is looked at before
            all predictions are made.
        text: the text.
        tokenizer: of the model.
        n_features: how many, drawn at random from the live ones.
        seed: of the draw.
        vocabulary: of :func:`read_vocabulary`, if it is at hand.

    Returns:
        Rows ``dictionary, layer, l0, feature, frequency, method, predicted, precision,
        precision_control, correlation, correlation_control``; for the method ``heads``, tokens
        before the peak are predicted, and there is no correlation. L0 is the dictionary's, over the
        text.
    """
    vocabulary = vocabulary or read_vocabulary(replacement)
    live = live_features(observed)
    random = np.random.default_rng((seed, layer))
    features = random.choice(live["feature"], min(n_features, len(live)), replace=False)
    vectors = replacement.centre(dictionary.W_enc[:, torch.from_numpy(features)].T)
    predictions = {
        method: score_tokens(replacement, vocabulary, vectors, method).cpu() for method in METHODS
    }
    through_heads = [_best_of_heads(replacement, vocabulary, vector, layer) for vector in vectors]

    revealed = [ActiveTokens(observed, text, int(feature)) for feature in features]
    frequency = live.set_index("feature")["frequency"]
    rows: list[dict[str, Any]] = []
    for i, (feature, found) in enumerate(zip(features.tolist(), revealed, strict=True)):
        other = (i + 1) % len(features)
        studied = [
            {"method": method, **_scored(found, scores[i], scores[other], tokenizer)}
            for method, scores in predictions.items()
        ]
        heads = {
            "method": "heads",
            "predicted": _words(through_heads[i], tokenizer),
            "precision": found.precision_before(through_heads[i]),
            "precision_control": found.precision_before(through_heads[other]),
        }
        common = {
            "dictionary": name, "layer": layer, "l0": observed.features["frequency"].sum(),
            "feature": feature, "frequency": frequency[feature],
        }  # fmt: skip
        rows += [common | row for row in (*studied, heads)]
    return pd.DataFrame(rows)


def _scored(
    found: ActiveTokens,
    scores: Float[Tensor, " token"],
    control: Float[Tensor, " token"],
    tokenizer: Any,
) -> dict[str, Any]:
    """How well a prediction does, and another feature's in its place."""
    best, best_of_control = (each.topk(K).indices.numpy() for each in (scores, control))
    return {
        "predicted": _words(best, tokenizer),
        "precision": found.precision(best),
        "precision_control": found.precision(best_of_control),
        "correlation": found.correlation(scores),
        "correlation_control": found.correlation(control),
    }


def _best_of_heads(
    replacement: ReplacementModel,
    vocabulary: Vocabulary,
    vector: Float[Tensor, " d_model"],
    layer: int,
) -> Int[np.ndarray, " k"]:
    """The k tokens with the largest scores through any of the heads that matter most."""
    pulled = vectors_of_heads(replacement, vocabulary, vector, layer)
    scores = score_tokens(replacement, vocabulary, pulled, "layer 0")
    scores = (scores - scores.mean(dim=1, keepdim=True)) / scores.std(dim=1, keepdim=True)
    return scores.amax(dim=0).topk(K).indices.cpu().numpy()


def _words(tokens: Int[np.ndarray, " k"], tokenizer: Any) -> str:
    return " | ".join(tokenizer.decode([int(token)]) for token in tokens[:SHOWN])


def summarise_studies(studies: pd.DataFrame) -> pd.DataFrame:
    """Means over features, with 95% intervals of what is gained over the control.

    Features are taken together (``all``), by layer, and by thirds of their dictionary's L0 and of
    their own frequency.

    Returns:
        Rows ``by, group, method, n_features``, and for each score its mean, that of the control,
        and ``_gain, _gain_low, _gain_high``.
    """
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
                row |= _gain(chosen, score)
            rows.append(row)
    return pd.DataFrame(rows)


def _thirds(values: "pd.Series[float]") -> "pd.Series[Any]":
    return pd.qcut(values.rank(method="first"), 3, labels=["low", "middle", "high"])


def _gain(studies: pd.DataFrame, score: str) -> dict[str, float]:
    """Means of a score and its control, and of their difference with its interval."""
    both = studies[[score, f"{score}_control"]].dropna()
    gain = mean_interval((both[score] - both[f"{score}_control"]).to_numpy())
    return {
        score: both[score].mean(),
        f"{score}_control": both[f"{score}_control"].mean(),
        f"{score}_gain": gain.mean,
        f"{score}_gain_low": gain.low,
        f"{score}_gain_high": gain.high,
    }
