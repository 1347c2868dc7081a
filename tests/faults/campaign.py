"""``make faults``: every fault of the catalogue, tried on a run of the smoke scale.

Writes how each ended to ``benchmarks/faults.json``, and ``docs/faults.md`` where that has its
table. Fails if a wrong result was kept. ``--like TEXT`` tries only faults whose family and name
contain it, and leaves the others as they are on record.
"""

import argparse
import platform
import shutil
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from faults.catalogue import all_faults
from faults.injection import Fault, Prepared, snakemake
from transcoders.files import read_json, write_json
from workflow.running import REPOSITORY, workspace

MARKS = ("<!-- table: begin -->", "<!-- table: end -->")
PAGE = REPOSITORY / "docs/faults.md"
RECORD = REPOSITORY / "benchmarks/faults.json"
WRONG = "wrong results kept"


def main() -> None:
    """Try them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--like", default="", help="only faults with this in their name")
    parser.add_argument("--prepared", type=Path, help="a folder where the smoke scale has run")
    parser.add_argument("--processes", type=int, default=2, help="faults tried at a time")
    arguments = parser.parse_args()
    faults = [fault for fault in all_faults() if arguments.like in str(fault)]
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        prepared = prepare(arguments.prepared or Path(folder) / "clean", bool(arguments.prepared))

        def attempt(numbered: tuple[int, Fault]) -> str:
            number, fault = numbered
            own = Path(folder) / f"fault{number}"
            try:
                return fault.attempt(prepared, own / "run")
            except Exception as error:  # whatever it is, this fault was not dealt with
                tqdm.write(f"WRONG {fault}\n{error}", file=sys.stderr)
                return WRONG
            finally:
                shutil.rmtree(own)

        with ThreadPoolExecutor(arguments.processes) as pool:
            results = pool.map(attempt, enumerate(faults))
            endings = list(tqdm(results, total=len(faults), unit="fault", file=sys.stderr))
    tried = dict(zip((str(fault) for fault in faults), endings, strict=True))
    before = read_json(RECORD)["faults"] if arguments.like and RECORD.exists() else {}
    write(
        {name: (before | tried)[name] for name in map(str, all_faults()) if name in before | tried}
    )
    print(Counter(endings))
    sys.exit(1 if WRONG in endings else 0)


def prepare(folder: Path, is_there: bool) -> Prepared:
    """A run of the smoke scale without faults."""
    if not is_there:
        workspace(folder)
        done = snakemake(folder)
        if done.status != 0:
            sys.exit(done.said)
    return Prepared.of(folder)


def write(endings: dict[str, str]) -> None:
    """The record of how every fault ended, and the table of the page."""
    count = Counter(endings.values())
    write_json(
        RECORD,
        {
            "command": "make faults",
            "machine": platform.platform(),
            "tried": len(endings),
            "resumed": count["resumed"],
            "refused": count["refused"],
            "wrong_results_kept": count[WRONG],
            "faults": endings,
        },
    )
    lines = ["| fault | tried | resumed | refused | wrong results kept |", "|---|---|---|---|---|"]
    for family in dict.fromkeys(fault.family for fault in all_faults()):
        lines.append(
            _line(family, [e for name, e in endings.items() if name.startswith(f"{family}: ")])
        )
    lines.append(_line("**in all**", list(endings.values())))
    head, _, rest = PAGE.read_text().partition(MARKS[0])
    _, _, tail = rest.partition(MARKS[1])
    PAGE.write_text("\n".join([f"{head}{MARKS[0]}", *lines, f"{MARKS[1]}{tail}"]))


def _line(title: str, endings: list[str]) -> str:
    counts = [len(endings), *(endings.count(each) for each in ("resumed", "refused", WRONG))]
    return f"| {title} | {' | '.join(map(str, counts))} |"


if __name__ == "__main__":
    main()
