"""Wall time and peak memory of every rule of the last run, as Snakemake measured them.

    python benchmarks/rules.py [--scale laptop]

Writes benchmarks/rules.csv from the files that the rules' `benchmark:` lines leave in
results/<scale>/logs, beside the memory that the scale file allots, and prints the disk that each
kind of result takes. Times depend on the machine. They are here for planning and are in no table
of results.
"""

from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from transcoders.config import Resources, Scale, load_scale
from transcoders.files import atomic_path
from transcoders.layout import Layout

ALLOTTED = {
    "fetch_model": "fetch_model", "fetch_corpus": "fetch_corpus", "tokenize": "tokenize",
    "corpus_manifest": "tokenize", "cache_activations": "cache_activations", "train_": "train",
    "evaluate": "evaluate", "find_circuits": "circuit", "check_features": "circuit",
    "measure_replacement": "circuit", "study_greater_than": "greater_than",
    "gather_": "gather_examples", "label_features": "measure_features",
    "measure_features": "measure_features", "table1": "measure_features",
    "study_features": "study_features", "feature_browser": "study_features",
    "table4": "study_features",
}  # fmt: skip
"""By how a job's name begins, the key of the scale file's `resources` that it goes by."""


def allotted(job: str, scale: Scale) -> Resources:
    """What the scale file gives to a job; a page, a table or a record has a notebook's."""
    keys = [key for start, key in ALLOTTED.items() if job.startswith(start)]
    return getattr(scale.resources, keys[0] if keys else "notebook")


def main(scale: Annotated[str, typer.Option()] = "laptop") -> None:
    layout = Layout(scale)
    settings = load_scale(layout.config)
    rows = []
    for path in sorted((layout.results / "logs").glob("*.tsv")):
        measured = pd.read_csv(path, sep="\t", na_values="-").fillna(0).iloc[0]
        memory = allotted(path.stem, settings).mem_mb
        rows.append((path.stem, round(measured["s"]), round(measured["max_rss"]), memory))
    table = pd.DataFrame(rows, columns=["job", "seconds", "peak_memory_mb", "allotted_mb"])
    with atomic_path(Path("benchmarks/rules.csv")) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")
    print(table.to_string(index=False))
    for folder in sorted(path for path in layout.results.iterdir() if path.is_dir()):
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        print(f"{folder}: {size / 1e6:.0f} MB on disk")


if __name__ == "__main__":
    typer.run(main)
