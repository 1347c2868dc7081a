"""How faults are put into a prepared run, and how what comes of them is judged.

A fault ends in one of two good ways. *Resumed*: the same command again succeeds, and every file is
byte for byte that of the run without faults. *Refused*: one message names the file or folder at
fault and says what to do, and no result was made from it. Anything else is a wrong result.
"""

import multiprocessing
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from faults import process
from transcoders.layout import Layout
from transcoders.process import set_environment
from workflow.running import hashes_below

Ending = Literal["resumed", "refused"]
SCALE = "smoke"
LAYOUT = Layout(SCALE)
TOPS = ("results", "figures")
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["torch", "transformers", "pandas", "scipy.stats", "sklearn.tree", "matplotlib.pyplot",
     "nbclient", "nbconvert"]
)  # fmt: skip
# A forked job finds the libraries loaded, so they must have read what a job of this scale sets.
set_environment("avx2")
SNAKEMAKE = [sys.executable, "-m", "snakemake", "--cores", "2"]
SECONDS = 300
"""After which a command counts as hanging."""


class WrongResultError(AssertionError):
    """A fault was not noticed, or not explained."""


class Run(NamedTuple):
    """A command that has ended."""

    status: int
    said: str
    """On standard error, and on standard output."""


class Event(NamedTuple):
    """Something written by a command, in the order of writing."""

    what: str
    path: str


@dataclass(frozen=True)
class Prepared:
    """A run of the smoke scale without faults, and copies of it to be damaged."""

    clean: Path
    hashes: dict[str, str]
    """SHA-256 of every file that it made, by path."""
    written: dict[tuple[str, ...], list["Event"]] = field(default_factory=dict)
    """What commands write, as far as it was asked for."""

    @classmethod
    def of(cls, clean):
        """What is in a folder where the smoke scale has run."""
        return cls(clean, hashes(clean))

    def copy(self, destination):
        """The whole run, to be damaged."""
        shutil.rmtree(destination, ignore_errors=True)
        shutil.copytree(self.clean, destination, ignore=shutil.ignore_patterns("__pycache__"))
        return destination

    def writing(self, folder, command):
        """All that a command writes without a fault, in order; found out in ``folder``, once.

        Its outputs are removed before, as Snakemake does.
        """
        if command not in self.written:
            found: list[Event] = []
            for _ in range(2):  # to learn what the outputs are, and without them
                self.copy(folder)
                remove_outputs(folder, found)
                if run(folder, command).status != 0:
                    raise WrongResultError(f"{command} does not succeed without a fault")
                found = events(folder)
            self.written[command] = found
        return self.written[command]

    def differences(self, folder, *, but=()):
        """Files that are not as in the clean run: changed, missing, or there too much.

        ``but`` leaves out paths that begin so.
        """
        found = hashes(folder)
        return sorted(
            name
            for name in found.keys() | self.hashes.keys()
            if found.get(name) != self.hashes.get(name) and not name.startswith(tuple(but))
        )


def hashes(folder):
    """SHA-256 of all that a run made, logs left out, half-written files not."""
    return {
        f"{top}/{name}": digest
        for top in TOPS
        for name, digest in hashes_below(folder / top).items()
        if not name.endswith(".snakemake_timestamp")
    }


def run(folder, command, *, moment="0"):
    """Run a subcommand in a folder, to be killed at some moment.

    It runs in a process forked from one that has imported the libraries, which takes most of the
    time of a small command.
    """
    arguments = [command[0], "--scale", SCALE, *command[1:]]
    log = folder / "events.log"
    log.unlink(missing_ok=True)
    given = (str(folder), environment(folder), moment, str(log), arguments)
    forked = FORKS.Process(target=process.run_forked, args=given)
    forked.start()
    forked.join(SECONDS)
    if forked.exitcode is None:
        forked.kill()
        raise WrongResultError(f"{command} hangs")
    return Run(forked.exitcode, (folder / "said.log").read_text())


def snakemake(folder, *arguments):
    """Run Snakemake in a folder, on two cores."""
    ended = subprocess.run(
        [*SNAKEMAKE, *arguments, "--config", f"scale={SCALE}"],
        cwd=folder, env=environment(folder), capture_output=True, text=True, check=False,
        timeout=SECONDS,
    )  # fmt: skip
    return Run(ended.returncode, ended.stderr + ended.stdout)


def environment(folder):
    """In which the code of that folder runs, and nothing of a test runner's."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("SNAKEMAKE", "PYTEST", "PYTHON"))
    }
    return kept | {"PYTHONPATH": str(folder / "src"), "PYTHONDONTWRITEBYTECODE": "1"}


def events(folder):
    """What the last command in a folder wrote."""
    lines = (folder / "events.log").read_text().splitlines()
    return [Event(*line.split(" ", 1)) for line in lines]


def made_by(written):
    """The files and folders that a command brought under their final names."""
    final = {event.path for event in written if event.what == "os.rename"}
    return sorted(
        path for path in final if not any(part.startswith(".") for part in Path(path).parts)
    )


def remove_outputs(folder, written):
    """Remove the files that a command made."""
    for path in made_by(written):
        if (folder / path).is_file():
            (folder / path).unlink()


def resumes(prepared, folder, command):
    """Run the command, which must succeed and leave all as it is in the clean run."""
    again = run(folder, command)
    if again.status != 0:
        raise WrongResultError(f"{command} does not succeed: {again.said}")
    if differences := prepared.differences(folder):
        raise WrongResultError(f"after {command}, other than in a clean run: {differences}")
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


@dataclass(frozen=True)
class Fault:
    """One fault: what it is, and how it is tried in a copy of the clean run."""

    family: str
    name: str
    attempt: Callable[[Prepared, Path], Ending]
    """Raises :class:`WrongResultError`."""

    def __str__(self):
        return f"{self.family}: {self.name}"
