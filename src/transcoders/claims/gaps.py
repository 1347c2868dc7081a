"""The measures of claims about gaps that a scale compares: by amount of data."""

from pathlib import Path

from transcoders.claims.ledger import load_claims
from transcoders.claims.measures import Evidence, Found, Untestable, reads
from transcoders.config import Site
from transcoders.gaps import Rule
from transcoders.statistics import Estimate


@reads("gap_by_tokens_fit.csv")
def gap_per_doubling(evidence: Evidence, site: Site | None) -> Found:
    """How much the gap changes when dictionaries see twice as many tokens, once each."""
    assert site is not None
    fits = evidence.table("gap_by_tokens_fit.csv")
    rows = fits[(fits["site"] == site.name) & (fits["quantity"] == "slope")]
    if rows.empty:
        raise Untestable(f"dictionaries at {site.name} were trained on one amount of data")
    return Found(Estimate(**rows.iloc[0][list(Estimate._fields)]))


def rule_of_gaps(listed_claims: Path) -> Rule:
    """What explains a gap is judged as the claim that transcoders are no worse."""
    claim = next(claim for claim in load_claims(listed_claims) if claim.id == "pareto")
    return Rule(claim.margin, claim.needs)
