"""The README says what the committed tables say. Run this file to print the table it must hold."""

import re
from pathlib import Path

import pandas as pd

from transcoders.layout import Layout
from transcoders.tables.claims import VERDICTS

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"


def claims_in_markdown() -> list[str]:
    """A line a claim: what it says, the verdict, our value with its interval and unit."""
    lines = ["| claim | verdict | here |", "|---|---|---|"]
    for row in pd.read_csv(ROOT / Layout("laptop").claims).to_dict("records"):
        _, _, site = row["claim"].partition(":")
        layer = f" *({site.replace('_layer', ', layer ')})*" if site else ""
        value = "" if pd.isna(row["value"]) else f"{row['value']:.2g}"
        if value and row["low"] != row["high"]:
            value += f" [{row['low']:.2g}, {row['high']:.2g}]"
        value = f"**{value}** {row['measure']}" if value else "not measured"
        page = re.match(r"(?:.*; )?(notebooks/[a-z0-9_]+\.html)", row["evidence"]).group(1)
        lines.append(
            f"| {row['statement']}{layer} | {VERDICTS[row['verdict']]} "
            f"[{row['verdict']}](results/laptop/{page}) | {value} |"
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
