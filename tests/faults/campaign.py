"""``make faults``: every fault of the catalogue, tried on a run of the smoke scale.

Writes how each ended to ``benchmarks/faults.json``, and the totals to the table of
``docs/faults.md``. Fails if a wrong result was kept.
"""

import platform
import shutil
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from faults.catalogue import all_faults
from faults.injection import Prepared, snakemake
from transcoders.files import write_json
from workflow.running import REPOSITORY, workspace

MARKS = ("<!-- table: begin -->", "<!-- table: end -->")
PAGE = REPOSITORY / "docs/faults.md"
RECORD = REPOSITORY / "benchmarks/faults.json"
WRONG = "wrong results kept"


def main():
    """Try them."""
    faults = all_faults()
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        clean = workspace(Path(folder) / "clean")
        if (done := snakemake(clean)).status != 0:
            sys.exit(done.said)
        prepared = Prepared.of(clean)

        def attempt(number):
            own = Path(folder) / f"fault{number}"
            try:
                return faults[number].attempt(prepared, own / "run")
            except Exception as error:  # whatever it is, this fault was not dealt with
                tqdm.write(f"WRONG {faults[number]}\n{error}", file=sys.stderr)
                return WRONG
            finally:
                shutil.rmtree(own)

        with ThreadPoolExecutor(2) as pool:
            tried = pool.map(attempt, range(len(faults)))
            endings = list(tqdm(tried, total=len(faults), unit="fault", file=sys.stderr))
    print(Counter(endings))
    write(dict(zip(map(str, faults), endings, strict=True)))
    sys.exit(1 if WRONG in endings else 0)


def write(endings):
    """The record of how every fault ended, and the table of the page."""
    count = Counter(endings.values())
    totals = {"resumed": "resumed", "refused": "refused", "wrong_results_kept": WRONG}
    write_json(
        RECORD,
        {
            "command": "make faults",
            "machine": platform.platform(),
            "tried": len(endings),
            **{key: count[ending] for key, ending in totals.items()},
            "faults": endings,
        },
    )
    families = [str(name).partition(": ")[0] for name in endings]
    rows = pd.DataFrame({"fault": families, "ending": endings.values()})
    rows = pd.concat([rows, rows.assign(fault="**in all**")])
    lines = ["| fault | tried | resumed | refused | wrong results kept |", "|---|---|---|---|---|"]
    for family, of_family in rows.groupby("fault", sort=False)["ending"]:
        numbers = [len(of_family), *((of_family == ending).sum() for ending in totals.values())]
        lines.append(f"| {family} | {' | '.join(map(str, numbers))} |")
    head, _, rest = PAGE.read_text().partition(MARKS[0])
    _, _, tail = rest.partition(MARKS[1])
    PAGE.write_text("\n".join([f"{head}{MARKS[0]}", *lines, f"{MARKS[1]}{tail}"]))


if __name__ == "__main__":
    main()
