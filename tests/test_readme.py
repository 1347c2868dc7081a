"""The README says what the committed tables say. Run this file to print the table it must hold."""

import re
from pathlib import Path

import pandas as pd

from transcoders.claims.words import SIGNS, numbers_in_words
from transcoders.config import load_scale
from transcoders.layout import Layout
from transcoders.rating.records import NO_PERSON

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
SCALES = [name for name in ("overnight", "laptop", "gpu") if (ROOT / Layout(name).claims).exists()]
NOT_TESTABLE = "not testable at this scale"


def claims_in_markdown():
    """A line for each of the paper's claims that a scale could test: verdicts and our values."""
    tables = {name: pd.read_csv(ROOT / Layout(name).claims) for name in SCALES}
    lines = [f"| claim | {' | '.join(SCALES)} |", "|---" * (1 + len(SCALES)) + "|"]
    untested, links = [], {}
    first = tables[SCALES[0]]
    for claim in first[first["kind"] == "claim"]["claim"].str.partition(":")[0].unique():
        found = {
            name: table[table["claim"].str.partition(":")[0] == claim]
            for name, table in tables.items()
        }
        statement = found[SCALES[0]].iloc[0]["statement"].rstrip(".")
        tested = [name for name in SCALES if set(found[name]["verdict"]) != {NOT_TESTABLE}]
        if not tested:
            untested.append(statement[0].lower() + statement[1:])
            continue
        page = re.search(r"notebooks/([a-z0-9_]+)\.html", found[tested[0]].iloc[0]["evidence"])[1]
        links[page] = f"results/{tested[0]}/notebooks/{page}.ipynb"
        cells = [_cell(found[name]) for name in SCALES]
        rated = all(NO_PERSON in found[name].iloc[0]["evidence"] for name in tested)
        but = f" ({NO_PERSON})" if rated else ""
        lines.append(f"| [{statement}][{page}]{but} | {' | '.join(cells)} |")
    lines += ["", *(f"[{page}]: {link}" for page, link in links.items()), ""]
    return [*lines, *(f"- Not testable at these scales: {each}." for each in untested)]


def _cell(rows):
    """The signs of a scale's verdicts on a claim, with values; for one site, the interval too."""
    if set(rows["verdict"]) == {NOT_TESTABLE}:
        return SIGNS[NOT_TESTABLE]
    shown = "{} {}" if len(rows) > 1 else "{} {} [{}, {}]"
    found = rows.to_dict("records")
    return ", ".join(shown.format(SIGNS[row["verdict"]], *numbers_in_words(row)) for row in found)


def test_the_claims_are_those_of_the_tables():
    assert "\n".join(claims_in_markdown()) in README.read_text()


def test_the_readme_says_what_was_studied_and_what_takes_how_long():
    text = README.read_text()
    scale = load_scale(ROOT / Layout("laptop").config)
    assert scale.takes.removesuffix(" on 2 cores") in text
    scales = {path.stem for path in ROOT.glob("config/*.yaml")} - {"claims", "smoke", "taste"}
    assert all(f"`{name}`" in text for name in scales)


def test_every_local_link_leads_to_a_file():
    for document in [README, *(ROOT / "docs").glob("*.md"), *ROOT.glob("*/README.md")]:
        text = document.read_text()
        links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text)
        links += re.findall(r"^\[[^]]+\]: (\S+)$", text, re.MULTILINE)
        local = [link for link in links if not link.startswith("http")]
        assert [link for link in local if not (document.parent / link).exists()] == [], document


def test_modules_are_on_the_map_and_none_is_left_out():
    text = (ROOT / "docs/code_map.md").read_text()
    package = ROOT / "src/transcoders"
    parts = {path.stem for path in package.iterdir() if path.suffix in ("", ".py")}
    parts -= {"__init__", "__main__", "__pycache__"}
    named = set(re.findall(r"`([a-z_]+)/?`", text))
    assert parts - named == set()


if __name__ == "__main__":
    print("\n".join(claims_in_markdown()))
