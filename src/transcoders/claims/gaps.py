"""The measures of claims about the gap between transcoders and SAEs at equal L0."""

from pathlib import Path

import pandas as pd

from transcoders.claims.ledger import Claim, load_claims
from transcoders.claims.measures import Found, Untestable, reads
from transcoders.config import Scale, Site
from transcoders.fronts import FrontGap
from transcoders.gaps import Pairs
from transcoders.statistics import Estimate


@reads("evaluation.csv", "evaluation_by_document.csv")
def front_gap(
    scale: Scale, evaluation: pd.DataFrame, by_document: pd.DataFrame, *, site: Site
) -> Found:
    """What a transcoder recovers of an MLP's worth at equal L0, minus what an SAE does."""
    pairs = Pairs(evaluation, by_document, seed=scale.seed)
    gap = _gap(pairs, site)
    runs = gap.draws.shape[1]
    trained = "one training run" if runs == 1 else f"mean of {runs} training runs"
    return Found(pairs.level(gap), f"{trained}; L0 from {gap.l0_low:.0f} to {gap.l0_high:.0f}")


@reads("evaluation.csv", "evaluation_by_document.csv")
def gap_of_largest_over_smallest_model(
    scale: Scale, evaluation: pd.DataFrame, by_document: pd.DataFrame
) -> Found:
    """How much more transcoders gain in the largest model than in the smallest."""
    sites = sorted(scale.sites, key=lambda site: scale.models[site.model].n_parameters())
    if len({site.model for site in sites}) < 2:
        raise Untestable("there is one model only; its layers are not sizes")
    # The same documents are held out for all models, so both share each resample.
    pairs = Pairs(evaluation, by_document, seed=scale.seed)
    gaps = [_gap(pairs, site) for site in (sites[-1], sites[0])]
    largest, smallest = pairs.draws(gaps).T
    return Found(pairs.estimate(largest - smallest, gaps[0]))


@reads("gap_by_tokens_fit.csv")
def gap_per_doubling(_: Scale, fits: pd.DataFrame, *, site: Site) -> Found:
    """How much the gap changes when dictionaries see twice as many tokens, once each."""
    rows = fits[(fits["site"] == site.name) & (fits["quantity"] == "slope")]
    if rows.empty:
        raise Untestable(f"dictionaries at {site.name} were trained on one amount of data")
    return Found(Estimate(**rows.iloc[0][list(Estimate._fields)]))


def _gap(pairs: Pairs, site: Site) -> FrontGap:
    if site.name not in pairs.sites:
        raise Untestable(f"no dictionary of {site.name} was evaluated")
    gap = pairs.gap(pairs.like_headlines(site.name))
    if gap is None:
        raise Untestable(f"at {site.name} the two fronts share no range of L0")
    return gap


def rule_of_gaps(listed_claims: Path) -> Claim:
    """The claim that transcoders are no worse, whose rule also judges what explains a gap."""
    return next(claim for claim in load_claims(listed_claims) if claim.id == "pareto")
