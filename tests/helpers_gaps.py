"""Tables of an evaluation with gaps that are known: as many pairs and documents as wanted."""

from typing import NamedTuple

import numpy as np
import pandas as pd

SITE = "tiny_layer1"
WORTH = 0.5
"""What the MLP is worth, in nats."""
L0 = (8.0, 30.0, 90.0)
PLAIN = ("transcoder", "mlp_out_sae")


class Made(NamedTuple):
    """A pair of kinds that was trained alike, and its gap."""

    gap: float
    different: int = 2**20
    passes: int = 1
    n_features: int = 64
    kinds: tuple[str, str] = PLAIN
    seed: int = 42
    site: str = SITE
    l0: tuple[float, ...] = L0
    dead: tuple[float, float] = (0.0, 0.2)
    norm: tuple[float, float] = (0.8, 0.8)


def tables(pairs, *, documents=60, noise=0.0, random=None):
    """Both tables of an evaluation.

    Args:
        pairs: the pairs. The gap of each is the same at every L0.
        documents: how many there are. They differ by far more than dictionaries do.
        noise: standard deviation, between documents, of the gap of each pair.
        random: of the noise.
    """
    random = random or np.random.default_rng(0)
    harder = random.normal(size=documents)
    tokens = random.integers(50, 500, documents)
    evaluation, by_document = [], []
    for pair in pairs:
        layer = int(pair.site.partition("layer")[2])
        gaps = pair.gap + noise * random.normal(size=documents)
        sides = zip(pair.kinds, (gaps, 0.0), pair.dead, pair.norm, strict=True)
        for kind, gap, dead, norm in sides:
            for number, l0 in enumerate(pair.l0):
                name = f"{pair.site}_{kind}_{number}_{'_'.join(map(str, pair[1:6]))}"
                ce = 4 - 0.1 * np.log(l0) - gap * WORTH + 0.0 * harder
                evaluation.append(
                    {
                        "dictionary": name, "site": pair.site, "model": "tiny",
                        "layer": layer, "kind": kind, "seed": pair.seed,
                        "headline": number == 0 and pair[1:6] == (2**20, 1, 64, PLAIN, 42),
                        "n_features": pair.n_features, "tokens_different": pair.different,
                        "tokens_trained": pair.different * pair.passes, "l0": l0,
                        "ce": np.average(ce, weights=tokens), "ce_original": 3.0,
                        "ce_mean_ablated": 3.0 + WORTH, "dead_fraction": dead, "l2_ratio": norm,
                    }
                )  # fmt: skip
                of = {"dictionary": name, "document": range(documents), "tokens": tokens}
                by_document.append(pd.DataFrame(of | {"l0": l0, "ce": ce + harder}))
    return pd.DataFrame(evaluation), pd.concat(by_document, ignore_index=True)
