"""Features of two dictionaries compared among those that are alike in other ways.

A rule tells rare features and features of a single token most easily. A dictionary that has more of
these would look more interpretable, although none of its features is.

This is a module of its own, so that claims can be judged without loading a model.
"""

import numpy as np
import pandas as pd

from transcoders.statistics import Estimate, matched_difference

BINS_PER_DECADE = 8
"""Features are alike in frequency if they are in the same eighth of a power of ten."""
SHARE_BINS = 12
"""They are alike in the share of their most common token if they are in the same twelfth of 0 to 1;
a share of 1 is like no other."""


def matched_accuracy(first: pd.DataFrame, second: pd.DataFrame) -> Estimate | None:
    """How much better a rule tells features of one dictionary than those of another.

    Args:
        first: ``frequency, single_token_share, rule_accuracy`` of features.
        second: of the other dictionary's.

    Returns:
        The difference of accuracies among features that are alike; None where none are.
    """
    both = pd.concat([first.assign(group=0), second.assign(group=1)])
    alike = {
        "rarity": np.floor(np.log10(both["frequency"]) * BINS_PER_DECADE),
        # Shares are fractions such as 1/12. The small number keeps rounding from moving them down.
        "bin_of_share": np.floor(both["single_token_share"] * SHARE_BINS + 1e-6),
    }
    return matched_difference(both.assign(**alike), "rule_accuracy", list(alike), "features")
