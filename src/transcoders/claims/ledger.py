"""The list of claims, how an estimate becomes a verdict, and the table ``claims.csv``.

Each claim says which direction of its measure is better, and has a margin: the smallest difference
that would matter. Values are counted from ``against`` (0 unless said otherwise), in that direction.

- **Superiority**: reproduced if the whole 95% interval is above 0, not reproduced if it is below.
- **Non-inferiority**: reproduced if the whole interval is above minus the margin, not reproduced if
  it is below.

In every other case the verdict is inconclusive. Superiority is judged without the margin, which
only says how small an effect its rule can find. A verdict is also inconclusive if there are fewer
clusters than the rule **needs** to find an effect of twice the margin in 80% of cases. (The effect
is counted from where the rule draws its line.) ``tests/claims`` shows by simulation that the rule
does so with that many, and that without an effect at most 5% of data sets are called reproduced.
"""

from collections import Counter
from inspect import signature
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import pandas as pd
from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from transcoders.claims.measures import MEASURES, TABLES, Found, Untestable
from transcoders.config import Scale, Site
from transcoders.config.fields import PositiveFloat, PositiveInt, Section
from transcoders.errors import UserError
from transcoders.files import read_json, read_table, read_yaml
from transcoders.layout import Layout
from transcoders.statistics import Estimate

Verdict = Literal["reproduced", "not reproduced", "inconclusive", "not testable at this scale"]
COLUMNS = [
    "claim", "kind", "section", "statement", "measure", "unit", "margin", "paper_value",
    "value", "low", "high", "n", "resampled", "verdict", "evidence",
]  # fmt: skip


class Evidence(NamedTuple):
    """A scale, and where its tables are."""

    scale: Scale
    layout: Layout


def _registered(measure: str) -> str:
    if measure not in MEASURES:
        raise ValueError(f"no measure named {measure!r}; expected one of {', '.join(MEASURES)}")
    return measure


class Claim(Section):
    """What the paper says, and how it is judged here."""

    id: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")]
    kind: Literal["claim", "check", "extension"]
    """``claim``: the paper's. ``check``: an identity, which holds unless the code is wrong.
    ``extension``: ours, and not counted."""
    section: str
    """Of the paper."""
    statement: str
    """The claim in our words."""
    measure: Annotated[str, AfterValidator(_registered)]
    """A function of :mod:`transcoders.claims`, registered with the tables that it reads."""
    unit: str
    """What the measure's value is."""
    paper: str
    """What the paper reports."""
    test: Literal["superiority", "non-inferiority"]
    better: Literal["larger", "smaller"]
    """The direction in which the measure speaks for the claim."""
    against: float = 0.0
    """The value from which differences count."""
    margin: PositiveFloat
    """The smallest difference that would matter, in the measure's unit."""
    because: str
    """The reason for the margin."""
    needs: PositiveInt
    """How many clusters the rule needs."""
    page: str
    """The notebook that shows it."""

    @property
    def of_a_site(self) -> bool:
        """Whether every site gets a verdict of its own: its measure takes a site."""
        return "site" in signature(MEASURES[self.measure]).parameters


def load_claims(path: Path) -> list[Claim]:
    """Read the list.

    Raises:
        UserError: the file is missing or not YAML; or a claim lacks a key, or has a measure that
            does not exist; or two claims have one name. The claim is named.
    """
    try:
        content = read_yaml(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; it lists the claims that are judged") from None
    try:
        claims = TypeAdapter(list[Claim]).validate_python(content)
    except ValidationError as error:
        problems = [
            f"  {_place(e['loc'], content)}: {e['msg'].removeprefix('Value error, ')}"
            for e in error.errors()
        ]
        raise UserError(
            "\n".join([f"{path}: the list of claims is not valid", *problems])
        ) from None
    for name, times in Counter(claim.id for claim in claims).items():
        if times > 1:
            raise UserError(f"{path}: {name}: listed {times} times, expected once")
    return claims


def _place(location: tuple[int | str, ...], content: Any) -> str:
    """The claim at fault, by its name where it has one, and its key."""
    number, *key = location or ("the list",)
    if isinstance(number, int) and isinstance(content[number], dict):
        number = content[number].get("id", f"claim {number + 1}")
    return ": ".join(map(str, [number, *key]))


def judge_claims(claims: list[Claim], evidence: Evidence) -> pd.DataFrame:
    """One row per claim, or one per site where a claim is judged at every site.

    Columns are :data:`COLUMNS`. A claim cannot be tested if the scale does not make its tables.
    """
    rows = [
        _row(claim, evidence, site)
        for claim in claims
        for site in (evidence.scale.sites if claim.of_a_site else (None,))
    ]
    return pd.DataFrame(rows, columns=COLUMNS).astype({"n": "Int64"})


def judge_page(evidence: Evidence, page: str) -> pd.DataFrame:
    """The rows of the claims that a page shows, judged from the tables that are there."""
    listed = load_claims(evidence.layout.listed_claims)
    return judge_claims([claim for claim in listed if claim.page == page], evidence)


def _row(claim: Claim, evidence: Evidence, site: Site | None) -> dict[str, object]:
    row: dict[str, object] = {
        "claim": claim.id if site is None else f"{claim.id}:{site.name}",
        **claim.model_dump(include={"kind", "section", "statement", "measure", "unit", "margin"}),
        "paper_value": claim.paper,
    }
    try:
        found = _measured(claim, evidence, site)
    except Untestable as reason:
        notes, row["verdict"] = [str(reason)], "not testable at this scale"
    else:
        row |= found.estimate._asdict() | {"verdict": verdict(claim, found.estimate)}
        notes = [found.note] if found.note else []
        if claim.kind != "check":
            notes += _what_decides(claim, found.estimate)
        if found.estimate.n < claim.needs:
            notes.append(
                f"inconclusive by construction: the rule needs {claim.needs} "
                f"{found.estimate.resampled.split(',')[0]} to find twice the margin in 80% of cases"
            )
    where = f"notebooks/{claim.page}.html, {', '.join(TABLES[claim.measure])}"
    return row | {"evidence": "; ".join([*notes, where])}


def _what_decides(claim: Claim, estimate: Estimate) -> list[str]:
    """Where the line is drawn, and what an interval that crosses it rules out all the same."""
    low, high, bar = _in_favour(claim, estimate)
    line = claim.against + (bar if claim.better == "larger" else -bar)
    side = "above" if claim.better == "larger" else "below"
    notes = [f"reproduced if the whole interval is {side} {line:g}".replace("-", "−")]
    if low <= bar <= high and estimate.n >= claim.needs:
        if claim.test == "superiority" and high < claim.margin:
            notes.append(f"an effect of {claim.margin:g}, the smallest that matters, is ruled out")
        if claim.test == "non-inferiority" and high < 0:
            notes.append(f"worse, but it is open whether by more than {claim.margin:g}")
    return notes


def _measured(claim: Claim, evidence: Evidence, site: Site | None) -> Found:
    tables = []
    for name in TABLES[claim.measure]:
        paths = sorted(evidence.layout.results.glob(name))
        if not paths:
            raise Untestable(f"this scale has no {name}")
        found = [read_json(path) if path.suffix == ".json" else read_table(path) for path in paths]
        tables.append(found if "*" in name else found[0])
    at = {} if site is None else {"site": site}
    return MEASURES[claim.measure](evidence.scale, *tables, **at)


def verdict(claim: Claim, estimate: Estimate) -> Verdict:
    """Judge a claim by the estimate of its measure."""
    if estimate.n < claim.needs:
        return "inconclusive"
    low, high, bar = _in_favour(claim, estimate)
    return "reproduced" if low > bar else "not reproduced" if high < bar else "inconclusive"


def _in_favour(claim: Claim, estimate: Estimate) -> tuple[float, float, float]:
    """Both ends of the interval and the bar, counted in the claim's favour."""
    low, high = estimate.low - claim.against, estimate.high - claim.against
    if claim.better == "smaller":
        low, high = -high, -low
    return low, high, 0.0 if claim.test == "superiority" else -claim.margin
