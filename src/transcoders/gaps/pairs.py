"""Pairs of kinds that were trained alike, and the gap of each."""

from collections.abc import Collection, Iterable, Sequence
from functools import cache, cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from transcoders.fronts import ANY_L0, PLAIN, FrontGap, Setup, front_gap, headline_setup, setups
from transcoders.statistics import RESAMPLES, Estimate, RunNoise, estimate, with_run_noise

SAME_STEPS = 0.1
"""Amounts of training are the same if they differ by less: batches do not divide every text."""


class Pair(NamedTuple):
    """A transcoder and an SAE on the MLP's output at one site, trained alike."""

    site: str
    kinds: tuple[str, str]
    setup: Setup

    @property
    def passes(self) -> int:
        """How often every token was seen."""
        return round(self.setup.tokens_trained / self.setup.tokens_different)

    def same_steps(self, tokens: int) -> bool:
        """Whether it was trained on that many tokens, repetitions counted."""
        return abs(self.setup.tokens_trained - tokens) < SAME_STEPS * tokens


def shared_range(gaps: Collection[FrontGap]) -> tuple[float, float]:
    """The lowest and highest L0 that all fronts cover. If there is none, the first is larger."""
    return max(gap.l0_low for gap in gaps), min(gap.l0_high for gap in gaps)


class Pairs:
    """All pairs of an evaluation. Their gaps share every resample of documents."""

    def __init__(
        self,
        evaluation: pd.DataFrame,
        by_document: pd.DataFrame,
        *,
        seed: int,
        resamples: int = RESAMPLES,
    ) -> None:
        """Take the tables.

        Args:
            evaluation: ``evaluation.csv``.
            by_document: ``evaluation_by_document.csv``.
            seed: of the resampling.
            resamples: of documents.
        """
        self.evaluation, self.by_document = evaluation, by_document
        self.seed, self.resamples = seed, resamples
        self.sites = list(dict.fromkeys(evaluation["site"]))
        self.gap = cache(self._gap)

    def of(self, site: str, kinds: tuple[str, str] = PLAIN) -> list[Pair]:
        """The pairs of two kinds at a site, by width and then by data."""
        return [Pair(site, kinds, setup) for setup in setups(self.evaluation, site, kinds)]

    def like_headlines(self, site: str) -> Pair:
        """The plain pair that was trained as the site's headline dictionaries were."""
        return Pair(site, PLAIN, headline_setup(self.evaluation, site))

    def by_data(self, site: str) -> list[Pair]:
        """The plain pairs that are as wide as the site's headline dictionaries."""
        width = self.like_headlines(site).setup.n_features
        pairs = [pair for pair in self.of(site) if pair.setup.n_features == width]
        return sorted(pairs, key=lambda pair: pair.setup.tokens_different)

    def _gap(self, pair: Pair, within: tuple[float, float] = ANY_L0) -> FrontGap | None:
        """The gap of a pair, over a range of L0; None if its fronts share none of it."""
        return front_gap(
            self.evaluation, self.by_document, pair.site, kinds=pair.kinds, setup=pair.setup,
            within=within, resamples=self.resamples, seed=self.seed,
        )  # fmt: skip

    def gaps(
        self, pairs: Iterable[Pair], within: tuple[float, float] = ANY_L0
    ) -> dict[Pair, FrontGap]:
        """The gaps of those pairs whose fronts share some of a range of L0."""
        found = {pair: self.gap(pair, within) for pair in pairs}
        return {pair: gap for pair, gap in found.items() if gap is not None}

    @cached_property
    def noise(self) -> RunNoise | None:
        """How much gaps vary from one training run to the next, by all pairs with several runs."""
        gaps = self.gaps(pair for site in self.sites for pair in self.of(site))
        return RunNoise.pooled(gap.draws[0] for gap in gaps.values())

    def draws(self, gaps: Sequence[FrontGap]) -> Float[np.ndarray, "draw gap"]:
        """Gaps in the data and in the same resamples, with what other training runs would change.

        A pair that was trained once is taken to vary from run to run like those that were trained
        several times.
        """
        means = np.stack([gap.draws.mean(axis=1) for gap in gaps], axis=1)
        n_runs = [gap.draws.shape[1] for gap in gaps]
        return with_run_noise(means, n_runs, self.noise, seed=self.seed)

    def level(self, gap: FrontGap) -> Estimate:
        """A gap, averaged over its training runs, with its interval."""
        return self.estimate(self.draws([gap])[:, 0], gap)

    def estimate(self, statistic: Float[np.ndarray, " draw"], gap: FrontGap) -> Estimate:
        """A number that was computed from :meth:`draws`, with its interval."""
        resampled = "documents" if self.noise is None else "documents, training runs"
        return estimate(statistic, gap.n_documents, resampled)
