"""Where in a text each feature of a dictionary is active: its best examples and a random sample.

One pass over the text looks at all features. Its memory grows with features × examples, not with
the text. In each row (a context), a feature has a **peak**: its largest activation and where it is.
A feature keeps

- the k rows with the largest peaks, and
- n rows drawn at random from those with a peak above zero. Every row gets a random number for every
  feature, and the rows with the n largest numbers stay. So the draw does not depend on how the text
  is batched. Sorted by activation, the sample shows the lower quantiles too.

The pass also finds on how many tokens a feature is active, its mean and largest activation, and a
histogram.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

BINS_PER_OCTAVE = 2
LOWEST_OCTAVE, HIGHEST_OCTAVE = -10, 10
N_BINS = (HIGHEST_OCTAVE - LOWEST_OCTAVE) * BINS_PER_OCTAVE
"""Logarithmic bins from 1/1024 to 1024. The outermost also hold what lies beyond."""


def bin_edges() -> Float[np.ndarray, " edge"]:
    """The activations at the edges of the histograms' bins."""
    return 2.0 ** (np.arange(N_BINS + 1) / BINS_PER_OCTAVE + LOWEST_OCTAVE)


class Kept(NamedTuple):
    """The best rows of each feature by some key, the best first."""

    key: Float[Tensor, "rank feature"]
    """What rows are compared by; -inf where a feature has fewer rows."""
    activation: Float[Tensor, "rank feature"]
    row: Int[Tensor, "rank feature"]
    position: Int[Tensor, "rank feature"]

    @classmethod
    def empty(cls, n: int, n_features: int, device: torch.device) -> "Kept":
        """None yet."""
        key = torch.full((n, n_features), -torch.inf, device=device)
        none = torch.full((n, n_features), -1, dtype=torch.long, device=device)
        return cls(key, torch.zeros_like(key), none, none)

    def merge(self, other: "Kept") -> "Kept":
        """The best of both. Among equals, those already kept stay."""
        joined = Kept(*(torch.cat(parts) for parts in zip(self, other, strict=True)))
        order = joined.key.argsort(dim=0, descending=True, stable=True)[: len(self.key)]
        return Kept(*(part.gather(0, order) for part in joined))


class FeatureExamples:
    """What the features of one dictionary do on a text, gathered batch by batch."""

    def __init__(
        self, n_features: int, *, n_top: int, n_sampled: int, seed: int, device: str = "cpu"
    ) -> None:
        """Start with no text.

        Args:
            n_features: number of features of the dictionary.
            n_top: how many rows with the largest peaks to keep.
            n_sampled: how many rows to draw at random.
            seed: seed of the draw.
            device: the activations' device.
        """
        self.n_tokens = 0
        self._seed = seed
        self._top = Kept.empty(n_top, n_features, torch.device(device))
        self._sampled = Kept.empty(n_sampled, n_features, torch.device(device))
        self._count = torch.zeros(n_features, dtype=torch.long, device=device)
        self._sum = torch.zeros(n_features, dtype=torch.double, device=device)
        self._histogram = torch.zeros(n_features * N_BINS, dtype=torch.long, device=device)

    @torch.no_grad()
    def add(
        self,
        z: Float[Tensor, "row position n_features"],
        rows: Int[Tensor, " row"],
        *,
        first_position: int,
    ) -> None:
        """Look at the activations of some rows.

        Args:
            z: activations.
            rows: their numbers in the text; examples refer to these.
            first_position: where ``z`` starts in each row.
        """
        active = z > 0
        self.n_tokens += active.shape[0] * active.shape[1]
        places = active.flatten().nonzero()[:, 0]
        feature, value = places % z.shape[2], z.flatten()[places]
        self._count += torch.bincount(feature, minlength=z.shape[2])
        # PyTorch refuses a weighted bincount here on a GPU, since its order is not fixed.
        self._sum += torch.zeros_like(self._sum).index_add_(0, feature, value.double())
        octave = (value.log2() - LOWEST_OCTAVE) * BINS_PER_OCTAVE
        bins = octave.long().clamp(0, N_BINS - 1)
        self._histogram += torch.bincount(feature * N_BINS + bins, minlength=len(self._histogram))
        peak, position = z.max(dim=1)
        row = rows.to(peak.device)[:, None].expand_as(position)
        position = position + first_position
        nothing = torch.full_like(peak, -torch.inf)
        self._top = self._top.merge(Kept(torch.where(peak > 0, peak, nothing), peak, row, position))
        luck = torch.stack([self._luck(int(number)) for number in rows])
        luck = torch.where(peak > 0, luck, nothing)
        self._sampled = self._sampled.merge(Kept(luck, peak, row, position))

    @property
    def n_bytes(self) -> int:
        """Memory of what is kept."""
        kept = [*self._top, *self._sampled, self._count, self._sum, self._histogram]
        return sum(tensor.numel() * tensor.element_size() for tensor in kept)

    def _luck(self, row: int) -> Float[Tensor, " feature"]:
        """A row's random numbers. They do not depend on its batch."""
        numbers = np.random.default_rng((self._seed, row)).random(len(self._count), np.float32)
        return torch.from_numpy(numbers).to(self._count.device)

    def examples(self) -> pd.DataFrame:
        """Rows ``feature, kind, rank, row, position, activation``.

        ``kind`` is ``top`` or ``sampled``; each kind is ranked by activation.
        """
        parts = []
        for kind, kept in (("top", self._top), ("sampled", self._sampled)):
            rank, feature = (kept.activation > 0).nonzero(as_tuple=True)
            columns = {"row": kept.row, "position": kept.position, "activation": kept.activation}
            values = {name: column[rank, feature].cpu().numpy() for name, column in columns.items()}
            parts.append(pd.DataFrame({"feature": feature.cpu().numpy(), "kind": kind, **values}))
        table = pd.concat(parts).sort_values(
            ["feature", "kind", "activation", "row"], ascending=[True, False, False, True]
        )
        table.insert(2, "rank", table.groupby(["feature", "kind"]).cumcount() + 1)
        return table.reset_index(drop=True)

    def features(self) -> pd.DataFrame:
        """Rows ``feature, n_active, frequency, mean, largest, histogram``.

        The mean is over the tokens where a feature is active; NaN if there are none.
        """
        count = self._count.cpu().numpy()
        with np.errstate(invalid="ignore"):
            mean = self._sum.cpu().numpy() / count
        return pd.DataFrame(
            {
                "feature": np.arange(len(count)),
                "n_active": count,
                "frequency": count / max(self.n_tokens, 1),
                "mean": mean,
                "largest": self._top.activation[0].cpu().numpy(),
                "histogram": list(self._histogram.cpu().numpy().reshape(len(count), N_BINS)),
            }
        )
