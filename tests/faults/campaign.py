"""``make faults``: every fault of the catalogue, tried on a run of the smoke scale.

Writes ``benchmarks/faults.json``, and ``docs/faults.md`` where that has its table. Fails if a wrong
result was kept. ``--like TEXT`` tries only faults whose family and name contain it, and writes
nothing.
"""

import argparse
import platform
import shutil
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY / "src"), str(REPOSITORY / "tests")]

from tqdm import tqdm  # noqa: E402

from faults.catalogue import all_faults  # noqa: E402
from faults.injection import Fault, Prepared, snakemake  # noqa: E402
from transcoders.files import write_json  # noqa: E402
from workflow.running import workspace  # noqa: E402

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
    faults = [each for each in all_faults() if arguments.like in f"{each.family}: {each.name}"]
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        prepared = prepare(arguments.prepared or Path(folder) / "clean", bool(arguments.prepared))

        def attempt(numbered: tuple[int, Fault]) -> str:
            number, fault = numbered
            own = Path(folder) / f"fault{number}"
            try:
                return fault.attempt(prepared, own / "run")
            except Exception as error:  # whatever it is, this fault was not dealt with
                tqdm.write(f"WRONG {fault.family}: {fault.name}\n{error}", file=sys.stderr)
                return WRONG
            finally:
                shutil.rmtree(own)

        with ThreadPoolExecutor(arguments.processes) as pool:
            results = pool.map(attempt, enumerate(faults))
            endings = list(tqdm(results, total=len(faults), unit="fault", file=sys.stderr))
    counted = Counter(zip((fault.family for fault in faults), endings, strict=True))
    families = list(dict.fromkeys(fault.family for fault in faults))
    table = [
        {
            "family": family,
            **{ending: counted[family, ending] for ending in ("resumed", "refused", WRONG)},
        }
        for family in families
    ]
    for row in table:
        print(row)
    if not arguments.like:
        write(faults, endings, table)
    sys.exit(1 if WRONG in endings else 0)


def prepare(folder: Path, is_there: bool) -> Prepared:
    """A run of the smoke scale without faults."""
    if not is_there:
        workspace(folder)
        done = snakemake(folder)
        if done.status != 0:
            sys.exit(done.said)
    return Prepared.of(folder)


def write(faults: list[Fault], endings: list[str], table: list[dict[str, object]]) -> None:
    """The record, and the table of the page."""
    count = Counter(endings)
    write_json(
        RECORD,
        {
            "command": "make faults",
            "machine": platform.platform(),
            "tried": len(faults),
            "resumed": count["resumed"],
            "refused": count["refused"],
            "wrong_results_kept": count[WRONG],
            "by_family": table,
            "faults": {
                f"{fault.family}: {fault.name}": ending
                for fault, ending in zip(faults, endings, strict=True)
            },
        },
    )
    lines = ["| fault | tried | resumed | refused | wrong results kept |", "|---|---|---|---|---|"]
    lines += [
        f"| {row['family']} | {row['resumed'] + row['refused'] + row[WRONG]} | {row['resumed']} | "
        f"{row['refused']} | {row[WRONG]} |"
        for row in table
    ]
    lines.append(
        f"| **in all** | **{len(faults)}** | **{count['resumed']}** | **{count['refused']}** | "
        f"**{count[WRONG]}** |"
    )
    text = PAGE.read_text()
    head, _, rest = text.partition(MARKS[0])
    _, _, tail = rest.partition(MARKS[1])
    PAGE.write_text(f"{head}{MARKS[0]}\n" + "\n".join(lines) + f"\n{MARKS[1]}{tail}")


if __name__ == "__main__":
    main()
