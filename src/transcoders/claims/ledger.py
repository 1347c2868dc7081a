"""All claims with their verdicts: the table ``claims.csv``."""

import pandas as pd

from transcoders.claims.definitions import Claim
from transcoders.claims.measures import MEASURES, Evidence, Outcome
from transcoders.claims.verdicts import Measured, Untestable, verdict
from transcoders.config import Site
from transcoders.errors import UserError

COLUMNS = [
    "claim", "section", "statement", "measure", "paper_value",
    "value", "low", "high", "verdict", "evidence",
]  # fmt: skip


def judge_claims(claims: list[Claim], evidence: Evidence) -> pd.DataFrame:
    """One row a claim, or one a site where a claim is judged at every site.

    Columns are :data:`COLUMNS`. A claim whose tables the scale does not make is not testable there.

    Raises:
        UserError: a claim names a measure that does not exist.
    """
    rows = []
    for claim in claims:
        if claim.measure not in MEASURES:
            raise UserError(
                f"config/claims.yaml: {claim.id}: no measure named {claim.measure!r}; expected "
                f"one of {', '.join(MEASURES)}"
            )
        for site in evidence.scale.sites if claim.each_site else (None,):
            rows.append(_row(claim, evidence, site))
    return pd.DataFrame(rows, columns=COLUMNS)


def _row(claim: Claim, evidence: Evidence, site: Site | None) -> dict[str, object]:
    outcome = _measure(claim, evidence, site)
    where = f"notebooks/{claim.page}.html, {', '.join(claim.tables)}"
    reason = f"{outcome.reason}; " if isinstance(outcome, Untestable) else ""
    value, low, high = outcome if isinstance(outcome, Measured) else (None, None, None)
    return {
        "claim": claim.id if site is None else f"{claim.id}:{site.name}",
        "section": claim.section,
        "statement": claim.statement,
        "measure": claim.unit,
        "paper_value": claim.paper,
        "value": value,
        "low": low,
        "high": high,
        "verdict": verdict(
            outcome,
            better_than=claim.better_than,
            no_worse_than=claim.no_worse_than,
            smaller_is_better=claim.smaller_is_better,
        ),
        "evidence": reason + where,
    }


def _measure(claim: Claim, evidence: Evidence, site: Site | None) -> Outcome:
    missing = [name for name in claim.tables if not list(evidence.layout.results.glob(name))]
    if missing:
        return Untestable(f"this scale makes no {missing[0]}")
    return MEASURES[claim.measure](evidence, site)
