"""The paper's claims, judged by the tables of a scale: the only place that says a verdict."""

from transcoders.claims import greater_than as greater_than  # which registers its measures
from transcoders.claims.gaps import rule_of_gaps as rule_of_gaps
from transcoders.claims.ledger import Evidence as Evidence
from transcoders.claims.ledger import judge_claims as judge_claims
from transcoders.claims.ledger import judge_page as judge_page
from transcoders.claims.ledger import load_claims as load_claims
from transcoders.claims.words import count_verdicts as count_verdicts
from transcoders.claims.words import describe as describe
