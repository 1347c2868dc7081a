"""Wall time and peak memory of every rule of the last run, as Snakemake measured them.

    python benchmarks/rules.py [--scale laptop]

Writes benchmarks/rules.csv from the files that the rules' `benchmark:` lines leave in
results/<scale>/logs, and prints the disk that each kind of result takes. Times depend on the
machine; they are here to plan with, and in no table of results.
"""

from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from transcoders.files import atomic_path
from transcoders.layout import Layout


def main(scale: Annotated[str, typer.Option()] = "laptop") -> None:
    layout = Layout(scale)
    rows = []
    for path in sorted((layout.results / "logs").glob("*.tsv")):
        measured = pd.read_csv(path, sep="\t").iloc[0]
        rows.append((path.stem, round(measured["s"]), round(measured["max_rss"])))
    table = pd.DataFrame(rows, columns=["job", "seconds", "peak_memory_mb"])
    with atomic_path(Path("benchmarks/rules.csv")) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")
    print(table.to_string(index=False))
    for folder in sorted(path for path in layout.results.iterdir() if path.is_dir()):
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        print(f"{folder}: {size / 1e6:.0f} MB on disk")


if __name__ == "__main__":
    typer.run(main)
