"""What a command reads of a scale file is what it declares: that is what Snakemake compares.

Every job of a finished run is done again in this process, and each key that it reads is noted.
"""

import re
import shlex
import shutil
import sys
from typing import Any

import nbclient
import pytest

from helpers_rating import finished
from transcoders.cli import app
from transcoders.cli.app import JOBS
from transcoders.config import Dictionary, Scale, Training, load_scale
from transcoders.config.fields import Section
from transcoders.layout import Layout
from transcoders.rating.records import save_record
from transcoders.rating.study import load_study
from workflow.running import snakemake

pytestmark = [pytest.mark.full, pytest.mark.usefixtures("own_settings")]
NAMES = {
    "name", "model", "layer", "kind", "together", "seeds", "headline", "type", "site", "sites",
}  # fmt: skip
"""Keys that name a file or say what and where an entry is: Snakemake compares the files' names."""
OWN = {"k", "l1_coefficient", "epochs", "expansion", "train_contexts"}
"""Keys that name an entry, where it has its own; else they are left out."""


def leaves(part, place=""):
    """Every value of a scale that is not a section: its section, its field and its place."""
    if isinstance(part, Section):
        for field in type(part).model_fields:
            value = object.__getattribute__(part, field)
            within = list(leaves(value, f"{place}/{field}"))
            yield from within
            if not within and not isinstance(value, Section):
                yield part, field, f"{place}/{field}"
    elif isinstance(part, dict | list | tuple):
        for key, value in part.items() if isinstance(part, dict) else enumerate(part):
            yield from leaves(value, f"{place}/{key}")


RESOLVING = {"seed_of", "contexts_of", "rows_of_evaluation", "rows_for_circuits", "streams"}
"""Methods for what a group has of its own or takes from the scale."""


class Reader:
    """Notes which keys of all scales that are loaded are read."""

    def __init__(self, patch):
        self.read: set[str] = set()
        self.scales: list[Scale] = []
        """Kept, so that no other object gets the identity of one that was read."""
        self.places: dict[tuple[int, str], str] = {}
        self.loading = False
        get, dump, validate = Section.__getattribute__, Section.model_dump, Scale.model_validate

        def getting(section, name):
            if not self.loading and name in type(section).model_fields:
                caller = sys._getframe(1)
                module, function = caller.f_globals["__name__"], caller.f_code.co_name
                # All other code of this module finds entries, by their names.
                if module != "transcoders.config.scale" or function in RESOLVING:
                    self.note(section, name)
            return get(section, name)

        def dumping(section, **options):
            for part, field, _ in leaves(section):
                if field in (options.get("include") or {field}) - (options.get("exclude") or set()):
                    self.note(part, field)
            return dump(section, **options)

        def validating(content):
            self.loading = True
            scale = validate(content)
            self.scales.append(scale)
            self.places |= {(id(part), field): place for part, field, place in leaves(scale)}
            self.loading = False
            return scale

        patch.setattr(Section, "__getattribute__", getting)
        patch.setattr(Section, "model_dump", dumping)
        patch.setattr(Scale, "model_validate", validating)

    def note(self, section, field):
        if isinstance(section, Dictionary):  # a copy of a group's entry
            mine, self.loading = section.__dict__, True
            section = next(
                entry
                for group in self.scales[-1].all_groups
                if group.name == mine["group"]
                for entry in group.entry.dictionaries
                if all(mine[k] == v for k, v in entry.__dict__.items() if k != "headline")
            )
            self.loading = False
        if isinstance(section, Training):  # perhaps a copy with a group's own settings
            whole = self.scales[-1].__dict__["training"]
            if section.__dict__[field] == whole.__dict__[field]:
                section = whole
        if place := self.places.get((id(section), field)):
            self.read.add(place)


def in_process(client, **_):
    """Run the code of a notebook here rather than in a kernel."""
    names: dict[str, Any] = {"__name__": "notebook", "display": lambda *_: None}
    for cell in client.nb.cells:
        if cell.cell_type == "code":
            exec(cell.source, names)


@pytest.fixture(scope="module")
def read_by(run, tmp_path_factory):
    """The keys that each job of the smoke scale reads."""
    folder = tmp_path_factory.mktemp("declared") / "run"
    shutil.copytree(run, folder, symlinks=True)
    asked = ("all", "--forceall", "--dry-run", "--printshellcmds", "--config", "scale=smoke")
    planned = snakemake(folder, *asked)
    lines = re.findall(r"python -m transcoders (.*) > ", planned.stdout + planned.stderr)
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        layout = Layout("smoke")
        # Table 1 reads what was rated, once somebody has finished.
        study = load_study(load_scale(layout.config), layout)
        save_record(layout.ratings, finished(study, layout.ratings))
        patch.setattr(nbclient.NotebookClient, "execute", in_process)
        reader = Reader(patch)
        for line in lines:
            words = shlex.split(line)
            rest = words[words.index("smoke") + 1 : words.index("--threads")]
            reader.read = set()
            app(words, standalone_mode=False)
            found[words[0], rest[-1] if rest else ""] = reader.read
    # The smoke scale imports nothing.
    assert {command for command, _ in found} >= JOBS.keys() - {"import-transcoder"}
    assert len(found) > 40
    return found


def another(section, field):
    """Another value for a key. It need not be valid."""
    annotation = str(type(section).model_fields[field].annotation)
    match value := section.__dict__[field]:
        case str():  # another of those that there are, or one that is made up
            choices = re.findall(r"'([^']*)'", annotation)
            return next((each for each in choices if each != value), value + "x")
        case None:
            return 3
        case bool():
            return not value
        case int() | float():
            return value + 1
        case dict():
            return {"file": "0" * 64}
        case _:
            return [*value, *(value or [0.5])]


def changed(path):
    """Every key, and the scale with another value of it."""
    for number in range(len(list(leaves(load_scale(path))))):
        scale = load_scale(path)
        section, field, place = list(leaves(scale))[number]
        scale.__dict__.pop("dictionaries", None)  # kept since its validation
        if section.__dict__[field] is not None or field not in OWN:
            section.__dict__[field] = another(section, field)
            yield place, scale


def test_a_job_depends_on_the_keys_that_its_command_reads(run, read_by):
    path = run / "config/smoke.yaml"
    scale = load_scale(path)
    before = {(c, argument): JOBS[c].reads(scale, argument) for c, argument in read_by}
    compared, problems = 0, []
    for key, other in changed(path):
        # Of a group, rows and epochs are part of the job's name.
        if re.fullmatch(rf".*/({'|'.join(NAMES)})|/groups/\d+/(train_contexts|epochs)", key):
            continue
        compared += 1
        depends = {job for job in before if JOBS[job[0]].reads(other, job[1]) != before[job]}
        reads = {job for job, keys in read_by.items() if key in keys}
        problems += [f"{job} depends on {key} and does not read it" for job in depends - reads]
        problems += [f"{job} reads {key} and does not depend on it" for job in reads - depends]
    assert compared > 100
    assert not problems, "\n".join(sorted(problems))
