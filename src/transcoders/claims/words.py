"""Verdicts in words. Pages, the landing page and the README say them as they are said here."""

import html
import math
from collections.abc import Hashable
from typing import Any

import pandas as pd

from transcoders.rating.records import NO_PERSON

Row = dict[Hashable, Any]
SIGNS = {
    "reproduced": "✓",
    "not reproduced": "✗",
    "inconclusive": "?",
    "not testable at this scale": "–",
}
"""Each verdict has a sign, so that a reader can scan a column."""
OURS = {"reproduced": "holds here", "not reproduced": "does not hold here"}
"""What the paper does not claim cannot be reproduced. Checks and extensions hold or do not."""


def verdict_in_words(row: Row) -> str:
    """The verdict of a row of ``claims.csv``, with a remark if one run or no person decided."""
    verdict = str(row["verdict"])
    words = f"{SIGNS[verdict]} {verdict if row['kind'] == 'claim' else OURS.get(verdict, verdict)}"
    if row["kind"] == "check" or pd.isna(row["value"]):
        return words
    but = [] if "training runs" in row["resampled"] else ["one run"]
    if NO_PERSON in row["evidence"]:
        but.append(NO_PERSON)
    return f"{words} ({', '.join(but)})" if but else words


def value_in_words(row: Row) -> str:
    """The value with its interval, and how many clusters the interval is over."""
    if pd.isna(row["value"]):
        return "not measured"
    if row["kind"] == "check":
        return f"{row['value']:.2g} (at most {row['margin']:.2g} is allowed)"
    value, low, high = numbers_in_words(row)
    return f"{value} [{low} to {high}], {row['n']:.0f} {row['resampled']}"


def numbers_in_words(row: Row) -> list[str]:
    """Value and bounds of a claim, to two digits of the interval's half-width.

    Only differences have a plus sign. The unit of a difference has a minus.
    """
    half = (row["high"] - row["low"]) / 2
    decimals = max(2, 1 - math.floor(math.log10(half))) if half > 0 else 3
    sign = "+" if "−" in row["unit"] else ""
    numbers = [round(row[key], decimals) + 0.0 for key in ("value", "low", "high")]
    return [f"{number:{sign}.{decimals}f}".replace("-", "−") for number in numbers]


def notes_in_words(row: Row) -> list[str]:
    """What there is to know about a verdict."""
    return list(row["evidence"].split("; ")[:-1])


def describe(claims: pd.DataFrame) -> str:
    """Markdown: a line for each row of ``claims.csv``, in which what was measured is folded."""
    lines = []
    for row in claims.to_dict("records"):
        site = row["claim"].partition(":")[2]
        notes = "".join(f"; {note}" for note in notes_in_words(row))
        lines.append(
            f"- **{verdict_in_words(row)}**: {row['statement']}{f' ({site})' if site else ''} "
            f"**{value_in_words(row)}**{notes}. "
            f"<details><summary>What was measured</summary>{html.escape(row['unit'])}</details>"
        )
    return "\n".join(lines)


def count_verdicts(claims: pd.DataFrame) -> str:
    """One sentence that counts the paper's claims by verdict. Sites make one claim together."""
    of_paper = claims[claims["kind"] == "claim"]
    ids = of_paper["claim"].str.partition(":")[0]
    verdicts = [together(set(of_claim)) for _, of_claim in of_paper["verdict"].groupby(ids)]
    parts = [f"{verdicts.count(verdict)} {verdict}" for verdict in SIGNS if verdict in verdicts]
    return f"Of the paper's {len(verdicts)} claims: {', '.join(parts)}."


def together(verdicts: set[str]) -> str:
    """The verdict of a claim about all sites: one site is enough to refute it."""
    if len(verdicts) == 1:
        return verdicts.pop()
    return "not reproduced" if "not reproduced" in verdicts else "inconclusive"
