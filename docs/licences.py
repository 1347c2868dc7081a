"""Tabulate the licences of the packages in requirements.lock: `python docs/licences.py`.

A licence is what the installed package's metadata says: its License-Expression, else its License
and its classifiers, else the beginning of its licence file. `--write` puts the table into
docs/supply_chain.md instead of printing it.
"""

import re
import sys
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements.lock"
PAGE = ROOT / "docs/supply_chain.md"
BEGIN = "<!-- the next lines are written by `python docs/licences.py --write` -->"
END = "<!-- the end of what docs/licences.py writes -->"

# What packages write for a licence's name, and its usual short name.
NAMES = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache": "Apache-2.0",
    "Apache 2.0": "Apache-2.0",
    "Apache 2.0 License": "Apache-2.0",
    "Apache License, Version 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD",
    "GNU General Public License (GPL)": "GPL",
    "ISC License": "ISC",
    "ISC License (ISCL)": "ISC",
    "ISC license": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "PSFL": "PSF",
    "Public Domain": "public domain",
    "Python Software Foundation License": "PSF",
    "UNKNOWN": "",
}
# What a licence's text is known by; further down, those of what the package contains may follow.
TEXTS = {
    "Permission is hereby granted, free of charge": "MIT",
    "Redistribution and use in source and binary forms": "BSD-2-Clause",
    "Apache License": "Apache-2.0",
}
LONGEST_NAME = 60  # characters; what is longer is a text
BEGINNING = 1000


def name_of_text(text: str) -> str:
    """The name of a licence by its text; empty if it is none of those in TEXTS."""
    words = " ".join(text.split())
    places = {words.find(phrase): name for phrase, name in TEXTS.items()}
    places = {place: name for place, name in places.items() if 0 <= place < BEGINNING}
    if not places:
        return ""
    start = min(places)
    third_clause = re.search(r"Neither the names? ", words[start : start + 1500])
    return "BSD-3-Clause" if places[start].startswith("BSD") and third_clause else places[start]


def short_name(value: str) -> str:
    """The short name of what stands in a License field or a classifier, which may be a text."""
    if "\n" in value or len(value) > LONGEST_NAME:
        return name_of_text(value)
    if value in NAMES:
        return NAMES[value]
    try:
        return canonicalize_license_expression(value)
    except InvalidLicenseExpression:
        return value


def licence(package: Distribution) -> str:
    """What a package says its licence is; several names, where it gives several, by semicolons."""
    fields = package.metadata
    if expression := fields.get("License-Expression"):
        return canonicalize_license_expression(expression)
    names = [short_name(fields.get("License") or "UNKNOWN")]
    for classifier in fields.get_all("Classifier") or []:
        if classifier.startswith("License :: "):
            name = short_name(classifier.rsplit(" :: ", 1)[1])
            # "BSD" says no more than "BSD-3-Clause", nor "MIT" than "MIT OR Apache-2.0"
            if not any(name in known for known in names):
                names.append(name)
    if stated := [name for name in names if name]:
        return "; ".join(stated)
    for path in package.files or []:
        if re.match(r"(LICEN[CS]E|COPYING)", path.name):
            return name_of_text(path.read_text()) or "see its licence file"
    return "not stated"


def locked_packages(lock: Path = LOCK) -> list[str]:
    """The names in a lock file, as written there."""
    return re.findall(r"^([A-Za-z0-9._-]+)==", lock.read_text(), flags=re.MULTILINE)


def table() -> str:
    """A Markdown table with a row a licence."""
    groups: dict[str, list[str]] = {}
    for name in locked_packages():
        groups.setdefault(licence(distribution(name)), []).append(name)
    rows = [
        f"| {name} | {len(groups[name])} | {', '.join(groups[name])} |"
        for name in sorted(groups, key=str.casefold)
    ]
    return "\n".join(["| licence | how many | packages |", "|---|---|---|", *rows])


def main() -> None:
    """Print the table, or write it into the page."""
    if "--write" not in sys.argv[1:]:
        print(table())
        return
    before, rest = PAGE.read_text().split(BEGIN)
    after = rest.split(END)[1]
    PAGE.write_text(f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}")


if __name__ == "__main__":
    main()
