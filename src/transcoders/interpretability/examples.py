"""Where in a text each feature of a dictionary is active: its best examples, and a fair sample.

All features are looked at in one pass over the text, in memory that grows with features × examples
and not with the text. Of each row (a context), a feature keeps its **peak**: the largest activation
and where it is. Kept are

- the k rows with the largest peaks, and
- n rows drawn at random from those with a peak above zero: every row gets a random number for every
  feature, and the n largest numbers stay, so that the draw does not depend on how the text is
  batched. Sorted by activation, they show the lower quantiles too.

Besides: on how many tokens a feature is active, the mean and largest activation, and a histogram.
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
"""Of activations, logarithmic: from 1/1024 to 1024, with what is beyond in the outermost."""
MERGE_ROWS = 64
"""Rows whose peaks are gathered before they are compared with those kept."""


def bin_edges() -> Float[np.ndarray, " edge"]:
    """Activations between the bins of the histograms."""
    return 2.0 ** (np.arange(N_BINS + 1) / BINS_PER_OCTAVE + LOWEST_OCTAVE)


class Kept(NamedTuple):
    """The best so many rows of each feature, by some key, the best first."""

    key: Float[Tensor, "rank feature"]
    """What rows are compared by; -inf where there are not so many."""
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
        """The best of both; of equal ones, those kept so far."""
        joined = Kept(*(torch.cat(parts) for parts in zip(self, other, strict=True)))
        order = joined.key.argsort(dim=0, descending=True, stable=True)[: len(self.key)]
        return Kept(*(part.gather(0, order) for part in joined))


class FeatureExamples:
    """What one dictionary's features do on a text, gathered batch by batch."""

    def __init__(
        self, n_features: int, *, n_top: int, n_sampled: int, seed: int, device: str = "cpu"
    ) -> None:
        """Start with no text.

        Args:
            n_features: of the dictionary.
            n_top: rows with the largest peaks to keep.
            n_sampled: rows to draw at random.
            seed: of the draw.
            device: where activations are.
        """
        self.n_tokens = 0
        self._seed = seed
        self._top = Kept.empty(n_top, n_features, torch.device(device))
        self._sampled = Kept.empty(n_sampled, n_features, torch.device(device))
        self._count = torch.zeros(n_features, dtype=torch.long, device=device)
        self._sum = torch.zeros(n_features, dtype=torch.double, device=device)
        self._histogram = torch.zeros(n_features * N_BINS, dtype=torch.long, device=device)
        self._waiting: list[tuple[Tensor, Tensor, Tensor]] = []

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
            rows: their numbers in the text, which are what examples refer to.
            first_position: of ``z`` in its rows.
        """
        active = z > 0
        self.n_tokens += active.shape[0] * active.shape[1]
        places = active.flatten().nonzero()[:, 0]
        feature, value = places % z.shape[2], z.flatten()[places]
        self._count += torch.bincount(feature, minlength=z.shape[2])
        # Not bincount with weights, which PyTorch refuses here on a GPU: its order is not fixed.
        self._sum += torch.zeros_like(self._sum).index_add_(0, feature, value.double())
        octave = (value.log2() - LOWEST_OCTAVE) * BINS_PER_OCTAVE
        bins = octave.long().clamp(0, N_BINS - 1)
        self._histogram += torch.bincount(feature * N_BINS + bins, minlength=len(self._histogram))
        peak, position = z.max(dim=1)
        self._waiting.append((peak, position + first_position, rows.to(peak.device)))
        if sum(len(part[2]) for part in self._waiting) >= MERGE_ROWS:
            self._merge()

    def _merge(self) -> None:
        if not self._waiting:
            return
        peak, position, rows = (torch.cat(parts) for parts in zip(*self._waiting, strict=True))
        self._waiting = []
        row = rows[:, None].expand_as(position)
        nothing = torch.full_like(peak, -torch.inf)
        self._top = self._top.merge(Kept(torch.where(peak > 0, peak, nothing), peak, row, position))
        luck = torch.stack([self._luck(int(number)) for number in rows])
        self._sampled = self._sampled.merge(
            Kept(torch.where(peak > 0, luck, nothing), peak, row, position)
        )

    @property
    def n_bytes(self) -> int:
        """Memory of what is kept; peaks that wait to be merged are not counted."""
        kept = [*self._top, *self._sampled, self._count, self._sum, self._histogram]
        return sum(tensor.numel() * tensor.element_size() for tensor in kept)

    def _luck(self, row: int) -> Float[Tensor, " feature"]:
        """A row's random numbers, the same whatever is in its batch."""
        numbers = np.random.default_rng((self._seed, row)).random(len(self._count), np.float32)
        return torch.from_numpy(numbers).to(self._count.device)

    def examples(self) -> pd.DataFrame:
        """Rows ``feature, kind, rank, row, position, activation``.

        Kind is ``top`` (ranked by activation) or ``sampled`` (likewise, among those drawn).
        """
        self._merge()
        parts = []
        for kind, kept in (("top", self._top), ("sampled", self._sampled)):
            rank, feature = (kept.row.cpu() >= 0).nonzero(as_tuple=True)
            parts.append(
                pd.DataFrame(
                    {
                        "feature": feature.numpy(),
                        "kind": kind,
                        "row": kept.row.cpu()[rank, feature].numpy(),
                        "position": kept.position.cpu()[rank, feature].numpy(),
                        "activation": kept.activation.cpu()[rank, feature].numpy(),
                    }
                )
            )
        # Rows without a peak took a place with a key of -inf.
        table = pd.concat([part[part["activation"] > 0] for part in parts])
        table = table.sort_values(
            ["feature", "kind", "activation", "row"], ascending=[True, False, False, True]
        )
        table.insert(2, "rank", table.groupby(["feature", "kind"]).cumcount() + 1)
        return table.reset_index(drop=True)

    def features(self) -> pd.DataFrame:
        """Rows ``feature, n_active, frequency, mean, largest, histogram``.

        The mean is over the tokens where a feature is active; NaN if there are none.
        """
        self._merge()
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
