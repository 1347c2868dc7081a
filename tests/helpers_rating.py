"""Two made-up dictionaries to rate, and what a rater does to a page."""

import numpy as np
import pandas as pd
import torch

from transcoders.config import RATED_KINDS
from transcoders.interpretability.gather import Observed, Text
from transcoders.rating.records import VERDICTS, Rating
from transcoders.rating.study import begin, create_study

FIRST_FEATURE = 71_000
"""Large, so that the number of a feature is not met by chance."""
N_LIVE, N_DEAD = 60, 15
N_ROWS, ROW_LENGTH = 90, 40
WORDS = [
    "<|endoftext|>", " of", " the", "ness", "\n", " \t", "<script>alert(1)</script>", " &amp;",
    "'\"><img src=x onerror=alert(1)>", "\u202e", "␣", " ", "{{ 7*7 }}", "é", " " + "w" * 90,
    *(f" w{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(200)),
]  # fmt: skip
PORT = 8765
SITE = f"http://127.0.0.1:{PORT}"


class Tokenizer:
    """A word for every token."""

    def decode(self, tokens, **_):
        return "".join(WORDS[token] for token in tokens)


def make_text():
    rows = torch.from_numpy(np.random.default_rng(0).integers(1, len(WORDS), (N_ROWS, ROW_LENGTH)))
    rows[:, 0] = 0
    return Text(rows.int(), torch.zeros(0, 2, dtype=torch.long))


def make_observed(seed, *, rarest):
    """Features active in some rows, of which 12 and 24 are kept as examples; some are dead.

    Args:
        seed: of everything.
        rarest: in how many rows the rarest live feature is active.
    """
    random = np.random.default_rng(seed)
    parts, numbers = [], range(FIRST_FEATURE, FIRST_FEATURE + N_LIVE + N_DEAD)
    for feature in numbers:
        live = feature < FIRST_FEATURE + N_LIVE
        n_rows = int(random.integers(rarest, 60)) if live else 2
        row = random.permutation(N_ROWS)[:n_rows]
        position = random.integers(1, ROW_LENGTH, n_rows)
        activation = np.sort(random.uniform(3.2, 4.1, n_rows))[::-1]
        sampled = np.sort(random.permutation(n_rows)[:24])
        for kind, kept in (("top", np.arange(min(12, n_rows))), ("sampled", sampled)):
            values = {"row": row[kept], "position": position[kept], "activation": activation[kept]}
            rank = np.arange(len(kept)) + 1
            parts.append(pd.DataFrame({"feature": feature, "kind": kind, "rank": rank, **values}))
    frequency = random.uniform(2e-4, 9e-4, len(numbers))
    features = pd.DataFrame({"feature": numbers, "frequency": frequency})
    return Observed(features, pd.concat(parts), torch.zeros(0, 0))


TRANSCODER = make_observed(1, rarest=20)
SAE = make_observed(2, rarest=4)
"""As in practice, its features are rarer."""


def make_study(transcoder=TRANSCODER, sae=SAE, *, n_features=20, seed=5):
    observed = dict(zip(RATED_KINDS, (transcoder, sae), strict=True))
    return create_study(
        observed, make_text(), Tokenizer(), weights=["a", "b"], n_features=n_features, seed=seed
    )


def finished(study, folder, rater="anna"):
    """A record of a rater who has finished and says "maybe" of everything."""
    ratings = {number: Rating(verdict="maybe") for number in range(1, len(study.items) + 1)}
    begun = begin(study, folder, rater)
    return begun.model_copy(update={"ratings": ratings, "finished": True})


def disguise(observed):
    """The same examples under other numbers: of features, activations and frequencies."""
    random = np.random.default_rng(9)
    numbers = observed.features["feature"].to_numpy()
    renumbered = pd.Series(random.permutation(numbers) - 30_000, index=numbers)
    features = observed.features * 40
    features = features.assign(feature=renumbered[numbers].to_numpy()).sort_values("feature")
    examples = observed.examples.assign(
        feature=renumbered[observed.examples["feature"].to_numpy()].to_numpy(),
        activation=observed.examples["activation"] * 11.7,
    ).sort_values(["feature", "kind", "rank"], ascending=[True, False, True])
    return Observed(features.reset_index(drop=True), examples, observed.background)


class Rater:
    """A browser without JavaScript: it presses buttons."""

    def __init__(self, client):
        self.client = client

    def page(self, path):
        response = self.client.get(path, base_url=SITE)
        assert response.status_code == 200
        return response.text

    def post(self, path, headers=None, **fields):
        """Post a form as the page would."""
        sent = {"Origin": SITE} if headers is None else headers
        return self.client.post(path, data={"note": ""} | fields, base_url=SITE, headers=sent)

    def rate(self, number, verdict, **fields):
        response = self.post(f"/item/{number}", verdict=verdict, **fields)
        assert response.status_code == 303, response.text
        return response

    def rate_all(self, n_items):
        """Give the verdicts in turn."""
        for number in range(1, n_items + 1):
            self.rate(number, VERDICTS[number % 3])
