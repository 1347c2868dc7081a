"""What features of the chosen MLP say about years, from weights alone (Figure 5).

- **DLA** over years: how a feature moves the logit of each next number, f_dec W_U.
- **De-embedding** over years: which years drive it through the chosen head. The features of layer
  0 with the strongest connections through that head (f_dec,0 W_V W_O f_enc) are de-embedded. The
  result is the sum of their de-embeddings, weighted by the connections.

Both leave out the scales of the norms, which depend on the prompt. Where numbers are written digit
by digit, the numbers are tens digits.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import stats
from torch import Tensor

from transcoders.circuits.invariant import connections, through_head
from transcoders.circuits.replacement import ReplacementModel
from transcoders.greater_than.estimates import own_above_others
from transcoders.greater_than.task import Numbers

FIRST_FEATURES = 20
"""How many features count for Figure 5, by variance. The paper shows three."""
LOOKED_AT = 2 * FIRST_FEATURES
"""How many features are searched for these, by variance: some have no value."""


def year_logits(
    replacement: ReplacementModel, numbers: Numbers, layer: int, features: Int[Tensor, " feature"]
) -> Float[Tensor, "feature candidate"]:
    """DLA over the next numbers, minus its mean, which does not change their probabilities."""
    ids = numbers.ids.to(features.device)
    rows, _ = replacement.unembedding(ids)
    logits = replacement.transcoders[layer].W_dec[features] @ rows.T
    return logits - logits.mean(dim=1, keepdim=True)


def year_de_embeddings(
    replacement: ReplacementModel,
    numbers: Numbers,
    layer: int,
    features: Int[Tensor, " feature"],
    head: tuple[int, int],
    *,
    n_upstream: int,
) -> Float[Tensor, "feature candidate"]:
    """De-embedding over numbers, through ``n_upstream`` features of layer 0 and a head.

    If the head reads before layer 0's MLP writes, the embeddings are read through the head alone.
    """
    embedding = replacement.model.W_E[numbers.ids.to(features.device)]
    if int(replacement.attention_reads[head[0]]) < int(replacement.mlp_writes[0]):
        return (
            through_head(replacement, replacement.encoder_vectors(layer, features), *head)
            @ embedding.T
        )
    best = connections(replacement, 0, layer, features, n_upstream, head=head)
    return torch.stack(
        [
            values @ (replacement.encoder_vectors(0, upstream) @ embedding.T)
            for values, upstream in zip(best.values, best.indices, strict=True)
        ]
    )


def step(
    activation: Float[Tensor, " year"], dla: Float[Tensor, " candidate"], numbers: Numbers
) -> float:
    """How far an active feature raises the logits of later years above the others.

    This is the mean DLA of next numbers that make a later year minus that of those that do not,
    averaged over years with the feature's activation as weight. It is in logits for an activation
    of 1. It is NaN if the feature is only active in years for which there are not both.
    """
    years = torch.arange(len(activation))
    signs = numbers.signs(years)
    later, other = (signs > 0).float(), (signs < 0).float()
    both = (later.sum(dim=1) > 0) & (other.sum(dim=1) > 0)
    contrast = (later @ dla) / later.sum(dim=1) - (other @ dla) / other.sum(dim=1)
    weight = activation[both]
    return float((weight * contrast[both]).sum() / weight.sum())


def agreement(
    activation: Float[Tensor, " year"], de_embedding: Float[Tensor, " candidate"], numbers: Numbers
) -> float:
    """Spearman's correlation over numbers of de-embedding and mean activation.

    It shows whether weights alone tell on which years the feature is active. It is NaN if one of
    the two is constant.
    """
    read = numbers.read(torch.arange(len(activation)))
    by_number = torch.stack([activation[read == i].mean() for i in range(len(de_embedding))])
    if by_number.std() == 0 or de_embedding.std() == 0:
        return float("nan")
    return float(stats.spearmanr(by_number.numpy(), de_embedding.numpy()).statistic)


def first_known(values: Float[np.ndarray, " feature"]) -> Int[np.ndarray, " first"]:
    """The places of the features that count, of features in order of variance; NaN is no value."""
    return np.flatnonzero(~np.isnan(values[:LOOKED_AT]))[:FIRST_FEATURES]


def above_others(
    of_pairs: Float[np.ndarray, "feature other"], *, seed: int
) -> dict[str, Any] | None:
    """How much larger a quantity is with a feature's own weights than with those of others.

    Args:
        of_pairs: the quantity, of each feature's activations with the weights of each feature. NaN
            where a feature has none; it is left out. Of the others, the first 20 count.
        seed: of the dealing.

    Returns:
        Fit for JSON: the ``gain`` with its interval, and the two means whose difference it is,
        ``own`` and ``others``. None for fewer than two features.
    """
    known = first_known(of_pairs.diagonal())
    pairs, n = of_pairs[np.ix_(known, known)], len(known)
    if n < 2:
        return None
    own = pairs.diagonal()
    return {
        "gain": own_above_others(pairs, seed=seed).record(),
        "own": float(own.mean()),
        "others": float((pairs.sum() - own.sum()) / (n * (n - 1))),
    }
