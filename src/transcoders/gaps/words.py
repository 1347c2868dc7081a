"""What the tables of gaps say, in sentences. Nothing here knows a result."""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from transcoders.gaps.by_tokens import HORIZON
from transcoders.gaps.why import GAP, LEVELS
from transcoders.words import listed, listed_layers

Row = dict[Hashable, Any]
CAUSES = {
    "data": "too little data",
    "steps": "too few training steps",
    "data at equal steps": "too few different tokens",
    "width": "too few features",
    "shrinkage": "the shrinkage by the L1 penalty",
    "affine part": "the affine part of the MLP",
    "norm kept": "a loss of norm",
    "dead features": "dead features",
    "training seeds": "chance between training runs",
}
"""Each factor, worded as the reason for a gap."""
CHANGES = {
    "steps": "More training steps on the same few tokens",
    "data at equal steps": "More different tokens, for as many steps,",
}
"""What :func:`in_short` tells apart."""


def why_in_words(why: pd.DataFrame) -> str:
    """Markdown: for each site of ``why.csv``, a line for each row."""
    return "\n".join(
        f"\n**{_place(str(site)).capitalize()}**\n\n"
        + "\n".join(f"- {_line(row)}" for row in rows.to_dict("records"))
        for site, rows in why.groupby("site", sort=False)
    )


def in_short(why: pd.DataFrame) -> str:
    """What more steps and more tokens change at all sites; or why one kind is better at the first.

    Args:
        why: ``why.csv``.
    """
    if not set(CHANGES) <= set(why["factor"]):
        return answers(why)[0]
    sentences = []
    for factor, opening in CHANGES.items():
        rows = why[why["factor"] == factor]
        better, worse = rows["low"] > 0, rows["high"] < 0
        parts = [
            f"{effect} at {_places(list(rows.loc[chosen, 'site']))} (the gap changes by "
            f"{listed([_number(change) for change in rows.loc[chosen, 'change']])})"
            for effect, chosen in (
                ("help transcoders", better),
                ("harm transcoders", worse),
                ("make no measurable difference", ~(better | worse)),
            )
            if chosen.any()
        ]
        sentences.append(f"{opening} {listed(parts)}.")
    return " ".join(sentences)


def answers(why: pd.DataFrame) -> list[str]:
    """One sentence for each site that says why, in plain words, with the gap that it is about.

    Args:
        why: ``why.csv``.
    """
    found = [
        _answer(rows)
        for _, rows in why.groupby("site", sort=False)
        if (rows["factor"] == GAP).any()
    ]
    return found or ["Nothing here tells why one kind is better: no fronts share a range of L0."]


def _answer(why: pd.DataFrame) -> str:
    """The sentence for one site."""
    gap = why[why["factor"] == GAP].iloc[0].to_dict()
    number = f"the gap is {_change(gap)} of what the MLP is worth"
    if gap["high"] < 0:
        found = "do worse than SAEs on the MLP's output even with the most data"
        rest = f", which is {_causes(why)}"
    else:
        compared = "do better" if gap["low"] > 0 else "are not measurably worse"
        found = f"{compared} than SAEs on the MLP's output"
        rest = _what_training_did(why)
    return f"At {_place(gap['site'])} and at equal sparsity, transcoders {found} ({number}){rest}."


def _causes(why: pd.DataFrame) -> str:
    """Which factors explain the gap, in part, not at all, or perhaps. The widest width counts."""
    why = why.drop_duplicates("factor", keep="last")
    parts = []
    for answered, opening, joint in (
        ("yes", "explained by", "and"),
        ("partly", "explained in part by", "and"),
        ("no", "not explained by", "or"),
        ("cannot tell", "perhaps due to", "or"),
    ):
        causes = [CAUSES[factor] for factor in why.loc[why["explains"] == answered, "factor"]]
        if causes:
            parts.append(f"{opening} {listed(causes, joint)}")
    return "; ".join(parts)


def _what_training_did(why: pd.DataFrame) -> str:
    """Where nothing is left to explain: what more data did, and whether by steps or by tokens."""
    rows = {row["factor"]: row for row in why.to_dict("records")}
    if "data" not in rows or rows["data"]["explains"] not in ("yes", "partly"):
        return ""
    changed = {name: _change(row) for name, row in rows.items()}
    least = f"; with the least data it was {_number(rows['data']['before'])}"
    if not {"steps", "data at equal steps"} <= rows.keys():
        return f"{least}, and more data changed it by {changed['data']}"
    return (
        f"{least}. More training steps on the same few tokens change that by {changed['steps']}; "
        f"more different tokens, at equal steps, change it by {changed['data at equal steps']}"
    )


def fit_in_words(fits: pd.DataFrame, margin: float) -> str:
    """Markdown: for each site, the slope and where the line leads."""
    lines = []
    for site, rows in fits.groupby("site", sort=False):
        of = {row["quantity"]: row for row in rows.to_dict("records")}
        slope, bend = of["slope"], of.get("curvature")
        reached = ", and ".join(
            f"{gap} {tokens_in_words(of[name])}"
            for gap, name in ((f"−{margin:g}", "tokens_to_margin"), ("0", "tokens_to_equal"))
        )
        lines.append(
            f"- {site}: each doubling of the tokens changes the gap by {_value(slope)}. On this "
            f"line the gap reaches {reached}."
            + ("" if bend is None else f" {_bend_in_words(bend)}")
        )
    return "\n".join(lines)


def tokens_in_words(row: Row) -> str:
    """At how many tokens a line reaches a gap, as far as can be said."""
    low, value, high = (_tokens(row[key]) for key in ("low", "value", "high"))
    if np.isinf(row["low"]) or (np.isnan(row["low"]) and np.isinf(row["value"])):
        return f"not within {HORIZON} times the most tokens"
    place = f"{'' if np.isinf(row['value']) else 'at '}{value} tokens"
    return f"{place} (no interval)" if np.isnan(row["low"]) else f"{place} [{low} to {high}]"


def _bend_in_words(row: Row) -> str:
    bends = row["low"] > 0 or row["high"] < 0
    found = "The points bend away from a line" if bends else "No bend of the line was found"
    return f"{found} (quadratic term {_value(row)})."


def _line(row: Row) -> str:
    number = f"{_change(row)}, {row['n']:.0f} {row['resampled']}"
    if row["factor"] == GAP:
        return f"**The gap**, transcoder − SAE ({row['comparison']}): {number}."
    name = f"**{row['factor'].capitalize()}** ({row['comparison']})"
    values = f"{_number(row['before'])} → {_number(row['after'])}"
    if row["factor"] == "training seeds":
        numbers = f"{row['change']:.3f} [{row['low']:.3f} to {row['high']:.3f}]"
        found = f"the {row['measure']} is {numbers}"
    elif row["factor"] in LEVELS:
        found = f"the {row['measure']} is {values}, a difference of {number}"
    else:
        undone = row["share_of_gap"]
        found = f"the gap is {values}, a change of {number}"
        found += "" if pd.isna(undone) else f", {undone:.0%} of the gap"
    return f"{name}: {found}. Explained by {CAUSES[row['factor']]}: **{row['explains']}**."


def _place(site: str) -> str:
    """A site as a reader names it: ``layer 20 of gpt2``."""
    model, _, layer = site.rpartition("_layer")
    return f"layer {layer} of {model}"


def _places(sites: Sequence[str]) -> str:
    """Sites of one model as ``layers 12 and 20``, others each with its model."""
    models, layers = zip(*(site.split("_layer") for site in sites), strict=True)
    if len(sites) > 1 and len(set(models)) == 1:
        return listed_layers(layers)
    return listed([_place(site) for site in sites])


def _change(row: Row) -> str:
    return _value(row | {"value": row["change"]})


def _value(row: Row) -> str:
    if pd.isna(row["low"]):
        return f"{_number(row['value'])} (no interval)"
    return f"{_number(row['value'])} [{_number(row['low'])} to {_number(row['high'])}]"


def _number(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def _tokens(number: float) -> str:
    """A number of tokens to two digits, as ``2.1 M``."""
    if np.isinf(number):
        return f"beyond {HORIZON} times the most"
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{float(f'{number / size:.2g}'):g} {unit}"
    return "under 1 k"
