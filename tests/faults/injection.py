"""How faults are put into a prepared run, and how their outcome is judged.

A fault ends in one of two good ways. *Resumed*: the same command again succeeds, and every file is
byte for byte that of the run without faults. *Refused*: one message names the file or folder at
fault and says what to do, and no result was made from it. Anything else is a wrong result.
"""

import multiprocessing
import re
import shutil
from typing import NamedTuple

from faults import process
from transcoders.layout import Layout
from workflow.running import hashes_below

LAYOUT = Layout("smoke")
FORKS = multiprocessing.get_context("forkserver")
# A forked job finds the libraries loaded, so they must have read what a job sets: this comes first.
FORKS.set_forkserver_preload(
    ["transcoders.as_a_job", "torch", "transformers", "pandas", "numba", "scipy.stats",
     "sklearn.tree", "matplotlib.pyplot", "nbclient", "nbconvert"]
)  # fmt: skip
SECONDS = 300
"""After which a command counts as hanging."""


class WrongResultError(AssertionError):
    """A fault was not noticed, or not explained."""


class Ended(NamedTuple):
    """How a command ended, and what it said."""

    status: int
    said: str


class Prepared:
    """A run of the smoke scale without faults, and copies of it to be damaged.

    Attributes:
        hashes: SHA-256 of every file that it made, by path.
        written: what commands write, as far as it was asked for.
    """

    def __init__(self, clean):
        self.clean, self.hashes = clean, hashes(clean)
        self.written = {}

    def copy(self, destination):
        """The whole run, to be damaged."""
        shutil.rmtree(destination, ignore_errors=True)
        shutil.copytree(self.clean, destination, ignore=shutil.ignore_patterns("__pycache__"))
        return destination

    def writing(self, folder, command):
        """What a command does to which paths without a fault; found out in ``folder``, once.

        Its outputs are removed before, as Snakemake does.
        """
        if command not in self.written:
            found = []
            for _ in range(2):  # to learn what the outputs are, and without them
                self.copy(folder)
                remove_outputs(folder, found)
                succeeds(folder, command)
                lines = (folder / "events.log").read_text().splitlines()
                found = [line.split(" ", 1) for line in lines]
            self.written[command] = found
        return self.written[command]

    def differences(self, folder, *, but=()):
        """Files that are not as in the clean run: changed, missing, or extra.

        Paths that begin with one of ``but`` are left out.
        """
        found = hashes(folder)
        return sorted(
            name
            for name in found.keys() | self.hashes.keys()
            if found.get(name) != self.hashes.get(name) and not name.startswith(tuple(but))
        )


def hashes(folder):
    """SHA-256 of all that a run made, half-written files included, but no logs."""
    return {
        f"{top}/{name}": digest
        for top in ("results", "figures")
        for name, digest in hashes_below(folder / top).items()
        if not name.endswith(".snakemake_timestamp")
    }


def run(folder, command, *, moment="0"):
    """Run a subcommand in a folder, to be killed at some moment.

    It runs in a process forked from one that has imported the libraries, which takes most of the
    time of a small command.
    """
    log = folder / "events.log"
    log.unlink(missing_ok=True)
    forked = FORKS.Process(target=process.run_forked, args=(str(folder), command, moment, str(log)))
    forked.start()
    forked.join(SECONDS)
    if forked.exitcode is None:
        forked.kill()
        raise WrongResultError(f"{command} hangs")
    return Ended(forked.exitcode, (folder / "said.log").read_text())


def succeeds(folder, command):
    """Run a subcommand in a folder, which must succeed."""
    ended = run(folder, command)
    if ended.status != 0:
        raise WrongResultError(f"{command} does not succeed: {ended.said}")


def made_by(written):
    """The files and folders that a command brought under their final names."""
    final = {path for what, path in written if what == "os.rename"}
    return sorted(path for path in final if not re.search(r"(^|/)\.", path))


def remove_outputs(folder, written):
    """Remove the files that a command made."""
    for path in made_by(written):
        if (folder / path).is_file():
            (folder / path).unlink()


def resumes(prepared, folder, command):
    """Run the command, which must succeed and leave all as it is in the clean run."""
    succeeds(folder, command)
    if differences := prepared.differences(folder):
        raise WrongResultError(f"after {command}, not as in a clean run: {differences}")
    return "resumed"


def judged(prepared, folder, ended, *, names, but=(), damaged=()):
    """What became of a command that met a fault.

    Args:
        prepared: the clean run.
        folder: where it ran.
        ended: how.
        names: one of these must be in the message: the file at fault, or its folder.
        but: paths that may differ from the clean run.
        damaged: paths that were damaged, which nobody is asked to repair.
    """
    differences = prepared.differences(folder, but=[*but, *damaged])
    if ended.status == 0:
        if differences:
            raise WrongResultError(f"it passed, and these differ: {differences}")
        return "resumed"
    if "Traceback" in ended.said or not re.search("^(error: |WorkflowError)", ended.said, re.M):
        raise WrongResultError(f"it is not explained: {ended.said}")
    if not any(name in ended.said for name in names):
        raise WrongResultError(f"none of {names} is named: {ended.said}")
    if made := [name for name in differences if (folder / name).exists()]:
        raise WrongResultError(f"it was refused, but something was made: {made}")
    return "refused"
