"""The paper's claims, judged by the tables of a scale."""

from transcoders.claims.definitions import Claim, load_claims
from transcoders.claims.ledger import COLUMNS, judge_claims
from transcoders.claims.measures import Evidence
from transcoders.claims.verdicts import Measured, Untestable, Verdict, verdict

__all__ = [
    "COLUMNS",
    "Claim",
    "Evidence",
    "Measured",
    "Untestable",
    "Verdict",
    "judge_claims",
    "load_claims",
    "verdict",
]
