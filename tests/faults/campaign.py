"""``make faults``: every fault of the catalogue, tried on a run of the smoke scale.

Writes how each ended to ``benchmarks/faults.json``, and the totals to the table of
``docs/faults.md``. Fails if a wrong result was kept.
"""

import platform
import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from faults.catalogue import all_faults
from faults.injection import Prepared
from transcoders.files import write_json
from workflow.running import REPOSITORY, snakemake, workspace

MARKS = ("<!-- table: begin -->", "<!-- table: end -->")
WRONG = "wrong results kept"
ENDINGS = ["resumed", "refused", WRONG]


def main():
    """Try them."""
    faults = all_faults()
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        clean = workspace(Path(folder) / "clean")
        snakemake(clean, "--config", "scale=smoke")
        prepared = Prepared(clean)

        def attempt(name):
            own = Path(tempfile.mkdtemp(dir=folder))
            try:
                return faults[name](prepared, own / "run")
            except Exception as error:  # whatever it is, this fault was not dealt with
                tqdm.write(f"WRONG {name}\n{error}", file=sys.stderr)
                return WRONG
            finally:
                shutil.rmtree(own)

        with ThreadPoolExecutor(2) as pool:
            tried = tqdm(pool.map(attempt, faults), total=len(faults), unit="fault")
            endings = dict(zip(faults, tried, strict=True))
    write(endings)
    sys.exit(1 if WRONG in endings.values() else 0)


def write(endings):
    """The record of how every fault ended, and the table of the page."""
    families = [name.partition(": ")[0] for name in endings]
    tried = pd.DataFrame({"fault": families, "ending": endings.values()})
    of_family = pd.crosstab(tried["fault"], tried["ending"]).reindex(
        index=tried["fault"].unique(), columns=ENDINGS, fill_value=0
    )
    total = of_family.sum()
    of_family.loc["**in all**"] = total
    record = {"command": "make faults", "machine": platform.platform(), "tried": len(endings)}
    totals = {ending.replace(" ", "_"): int(total[ending]) for ending in ENDINGS}
    write_json(REPOSITORY / "benchmarks/faults.json", record | totals | {"faults": endings})
    of_family.insert(0, "tried", of_family.sum(axis=1))
    rows = [("fault", *of_family.columns), *of_family.itertuples()]
    lines = [f"| {' | '.join(map(str, row))} |" for row in rows]
    table = "\n".join([MARKS[0], lines[0], "|---|---|---|---|---|", *lines[1:], MARKS[1]])
    page = REPOSITORY / "docs/faults.md"
    head, _, rest = page.read_text().partition(MARKS[0])
    page.write_text(head + table + rest.partition(MARKS[1])[2])


if __name__ == "__main__":
    main()
