# What the other rule files share.

import re
from pathlib import Path

CONDA = "../../environment.yml"
LOGS = LAYOUT.results / "logs"


def cli(command):
    """The command line of a subcommand, without its arguments."""
    return f"python -m transcoders {command} --scale {SCALE.name}"


def given(rule):
    """Threads, memory and minutes that the scale file allots."""
    return getattr(SCALE.resources, rule)


def settings(*keys, rule, **more):
    """What in the scale file a job depends on, as a parameter: a change makes it run again.

    Keys are dotted, or tuples where a part has a dot of its own. Threads are among them, since
    their number changes how sums round.
    """
    chosen = {"threads": given(rule).threads}
    for key in keys:
        value = SCALE.model_dump(mode="json")
        parts = key if isinstance(key, tuple) else key.split(".")
        for part in parts:
            value = value[part]
        chosen[".".join(parts)] = value
    return chosen | more


def local_files(source):
    """The files of a source on this machine, as inputs, so that a change of them is noticed."""
    if source.type != "files":
        return []
    return sorted(path for path in Path(source.path).rglob("*") if path.is_file())


def any_of(names):
    """A pattern for a wildcard: one of these names."""
    return "|".join(re.escape(name) for name in names) or "none"


def drawn(*names):
    """The files of some figures."""
    return [
        LAYOUT.figure(f"{name}{suffix}")
        for name in names
        for suffix in (".pdf", ".png")
    ]


def rendered(page):
    """The files of a page."""
    return multiext(
        str(LAYOUT.notebook(page.notebook).with_suffix("")), ".ipynb", ".html"
    )
