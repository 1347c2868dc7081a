"""The list of claims, how a value becomes a verdict, and the table ``claims.csv``.

A claim that a value is *better* than a threshold is

- reproduced if the whole 95% interval is beyond the threshold,
- partly reproduced if the value is, but not the whole interval,
- otherwise not reproduced.

A claim that a value is *no worse* than a threshold is

- reproduced if the value reaches the threshold,
- partly reproduced if only the interval does, so that no difference is shown,
- otherwise not reproduced.

A measure without an interval counts as an interval of one point.
"""

from pathlib import Path
from typing import Annotated, Literal

import pandas as pd
from pydantic import Field, TypeAdapter, ValidationError, model_validator

from transcoders.claims.measures import MEASURES, Evidence, Measured, Outcome, Untestable
from transcoders.config import Site
from transcoders.config.fields import Section
from transcoders.errors import UserError
from transcoders.files import read_yaml

Verdict = Literal["reproduced", "partly", "not reproduced", "not testable at this scale"]
COLUMNS = [
    "claim", "section", "statement", "measure", "paper_value",
    "value", "low", "high", "verdict", "evidence",
]  # fmt: skip


class Claim(Section):
    """What the paper says, and how it is judged here."""

    id: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")]
    section: str
    """Of the paper."""
    statement: str
    """The claim in our words."""
    measure: str
    """A function of :mod:`transcoders.claims.measures`."""
    unit: str
    """What the measure's value is."""
    paper: str
    """What the paper reports."""
    better_than: float | None = None
    """The claim says that the value is better than this. A claim has this key or the next one."""
    no_worse_than: float | None = None
    """The claim says that the value is at least as good as this."""
    smaller_is_better: bool = False
    each_site: bool = False
    """Whether every site gets a verdict of its own."""
    tables: Annotated[list[str], Field(min_length=1)]
    """The tables in ``results/<scale>/`` that the measure reads."""
    page: str
    """The notebook that shows it."""

    @model_validator(mode="after")
    def _one_threshold(self) -> "Claim":
        if (self.better_than is None) == (self.no_worse_than is None):
            raise ValueError(f"{self.id}: expected either better_than or no_worse_than")
        return self


def load_claims(path: Path) -> list[Claim]:
    """Read the list.

    Raises:
        UserError: the file is missing or not YAML, or a claim is not valid or listed twice.
    """
    try:
        claims = TypeAdapter(list[Claim]).validate_python(read_yaml(path))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; it lists the claims that are judged") from None
    except ValidationError as error:
        raise UserError(f"{path}: the list of claims is not valid\n{error}") from None
    ids = [claim.id for claim in claims]
    for id in ids:
        if ids.count(id) > 1:
            raise UserError(f"{path}: {id} is listed {ids.count(id)} times, expected once")
    return claims


def judge_claims(claims: list[Claim], evidence: Evidence) -> pd.DataFrame:
    """One row per claim, or one per site where a claim is judged at every site.

    Columns are :data:`COLUMNS`. A claim cannot be tested if the scale does not make its tables.

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
    results = evidence.layout.results
    missing = [name for name in claim.tables if not list(results.glob(name))]
    outcome: Outcome
    if missing:
        outcome = Untestable(f"this scale makes no {missing[0]}")
    else:
        outcome = MEASURES[claim.measure](evidence, site)
    where = f"notebooks/{claim.page}.html, {', '.join(claim.tables)}"
    reason = f"{outcome.reason}; " if isinstance(outcome, Untestable) else ""
    return {
        "claim": claim.id if site is None else f"{claim.id}:{site.name}",
        "section": claim.section,
        "statement": claim.statement,
        "measure": claim.unit,
        "paper_value": claim.paper,
        **(outcome._asdict() if isinstance(outcome, Measured) else {}),
        "verdict": verdict(
            outcome,
            better_than=claim.better_than,
            no_worse_than=claim.no_worse_than,
            smaller_is_better=claim.smaller_is_better,
        ),
        "evidence": reason + where,
    }


def verdict(
    outcome: Outcome,
    *,
    better_than: float | None,
    no_worse_than: float | None,
    smaller_is_better: bool,
) -> Verdict:
    """Judge a claim. Exactly one of the two thresholds is given."""
    if isinstance(outcome, Untestable):
        return "not testable at this scale"
    value, low, high = outcome
    if smaller_is_better:
        value, low, high = -value, -high, -low
    sign = -1 if smaller_is_better else 1
    if better_than is not None:
        surely, likely = low > sign * better_than, value > sign * better_than
    else:
        assert no_worse_than is not None
        surely, likely = value >= sign * no_worse_than, high >= sign * no_worse_than
    return "reproduced" if surely else "partly" if likely else "not reproduced"
