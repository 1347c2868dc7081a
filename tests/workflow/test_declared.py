"""What a command reads of a scale file is what it declares: that is what Snakemake compares.

Every job of a finished run is done again in this process, and each key that it reads is noted.
"""

import re
import shlex
import shutil
import sys
from typing import Any, get_args

import nbclient
import pytest
from pydantic import ValidationError

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
NAMES = {"name", "model", "layer", "kind", "together", "seeds"}
"""Keys that name a file or say at which MLP an entry is: Snakemake compares the files' names."""
FIXED = {
    "headline", "type", "k", "l1_coefficient", "imported", "published", "site", "sites",
    "train_contexts", "epochs", "expansion", "precision",
}  # fmt: skip
"""Keys that cannot always be changed alone: the scale might not be valid."""


def leaves(part, place=""):
    """Every value of a scale that is not a section: its section, its field and its place."""
    if isinstance(part, Section):
        for field in type(part).model_fields:
            value = object.__getattribute__(part, field)
            if any(True for _ in leaves(value)):
                yield from leaves(value, f"{place}/{field}")
            elif not isinstance(value, Section):
                yield part, field, f"{place}/{field}"
    elif isinstance(part, dict | list | tuple):
        items = part.items() if isinstance(part, dict) else enumerate(part)
        for key, value in items:
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
    planned = snakemake(
        folder, "all", "--forceall", "--dry-run", "--printshellcmds", "--config", "scale=smoke"
    )
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


def others(section, field):
    """Other values for a key, the first of which may not be valid."""
    value = getattr(section, field)
    annotation = str(type(section).model_fields[field].annotation)
    yield from re.findall(r"'([^']*)'", annotation) if "Literal" in annotation else ()
    match value:
        case bool():
            yield not value
        case int() | float():
            yield from (value + 1, value * 2, value / 2, value - 1)
        case str():
            yield from (value + "x", value.replace("1", "0"))
        case None:
            yield from (3, 0.5, "x")
        case list() | tuple():
            yield from (list(value[:-1]), [*value, *value[-1:]], [0.5, 0.5])
            yield from get_args(get_args(type(section).model_fields[field].annotation)[0])
        case dict():
            yield {"file": "0" * 64}


def changed(scale):
    """Every key, and the scale with another value of it, if there is one that is valid."""
    for section, field, place in leaves(scale):
        for value in others(section, field):
            content = scale.model_dump(mode="json")
            *steps, last = (int(s) if s.isdigit() else s for s in place.split("/")[1:])
            part = content
            for step in steps:
                part = part[step]
            if part[last] == value:
                continue
            part[last] = value
            try:
                yield place, Scale.model_validate(content)
                break
            except ValidationError:
                continue
        else:
            yield place, None


def test_a_job_depends_on_the_keys_that_its_command_reads(run, read_by):
    scale = load_scale(run / "config/smoke.yaml")
    before = {(c, argument): JOBS[c].reads(scale, argument) for c, argument in read_by}
    compared, problems = 0, []
    for key, other in changed(scale):
        field = key.rpartition("/")[2]
        if other is None:
            assert field in NAMES | FIXED, key
        # Of a group, the rows are part of the job's name.
        if other is None or field in NAMES or re.fullmatch(r"/groups/\d+/train_contexts", key):
            continue
        compared += 1
        depends = {job for job in before if JOBS[job[0]].reads(other, job[1]) != before[job]}
        reads = {job for job, keys in read_by.items() if key in keys}
        problems += [f"{job} depends on {key} and does not read it" for job in depends - reads]
        problems += [f"{job} reads {key} and does not depend on it" for job in reads - depends]
    assert compared > 100
    assert not problems, "\n".join(sorted(problems))
