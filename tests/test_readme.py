"""The README says what the committed tables say. Run this file to print the table it must hold."""

import re
from pathlib import Path

import pandas as pd

from transcoders.claims.words import value_in_words, verdict_in_words
from transcoders.layout import Layout

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"


def claims_in_markdown() -> list[str]:
    """A line for each of the paper's claims: what it says, the verdict, and our value."""
    lines = ["| claim | verdict | here |", "|---|---|---|"]
    table = pd.read_csv(ROOT / Layout("laptop").claims).astype({"n": "Int64"})
    for row in table[table["kind"] == "claim"].to_dict("records"):
        _, _, site = row["claim"].partition(":")
        layer = f" *({site.replace('_layer', ', layer ')})*" if site else ""
        page = re.match(r"(?:.*; )?(notebooks/[a-z0-9_]+\.html)", row["evidence"]).group(1)
        lines.append(
            f"| {row['statement']}{layer} | [{verdict_in_words(row)}](results/laptop/{page}) | "
            f"{value_in_words(row)}{'' if pd.isna(row['value']) else ': ' + row['unit']} |"
        )
    return lines


def test_the_claims_are_those_of_the_table() -> None:
    shown = [line for line in README.read_text().splitlines() if line.startswith("| ")]
    start = shown.index("| claim | verdict | here |")
    expected = [line for line in claims_in_markdown() if not line.startswith("|---")]
    assert shown[start : start + len(expected)] == expected


def test_every_local_link_leads_to_a_file() -> None:
    for document in [README, *(ROOT / "docs").glob("*.md"), *ROOT.glob("*/README.md")]:
        links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text())
        local = [link for link in links if not link.startswith("http")]
        assert [link for link in local if not (document.parent / link).exists()] == [], document


def test_modules_named_in_the_readme_exist_and_none_is_left_out() -> None:
    text = README.read_text()
    package = ROOT / "src/transcoders"
    parts = {
        path.stem
        for path in package.iterdir()
        if path.name not in ("__init__.py", "__main__.py", "__pycache__")
        and path.suffix in ("", ".py")
    }
    named = set(re.findall(r"`([a-z_]+)/?`", text))
    assert parts - named == set()


if __name__ == "__main__":
    print("\n".join(claims_in_markdown()))
