# What the other rule files share.

import re
from pathlib import Path
from typing import NamedTuple

CONDA = "../../environment.yml"
LOGS = LAYOUT.results / "logs"
WEIGHTS = [
    LAYOUT.dictionary(dictionary.name) / "sae_weights.safetensors"
    for dictionary in [*SCALE.dictionaries, *SCALE.imported_transcoders]
]


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
    given = [source.path] if isinstance(source.path, str) else source.path
    found = [path for one in map(Path, given) for path in (one, *one.rglob("*"))]
    return sorted(path for path in found if path.is_file())


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


# Of the report, each with a caption in workflow/report/.
CHAPTERS = {
    "claims": "Claims",
    "figure3": "Figure 3",
    "circuits": "Circuits",
    "greater_than": "Greater-than: Figures 4 and 5",
    "interpretability": "Interpretability: Table 1",
    "case_studies": "Case studies: Table 4",
    "training": "Training",
}


class Page(NamedTuple):
    """A notebook: the rule that executes it, what it reads, and the figures that it draws."""

    name: str
    notebook: str
    message: str
    tables: list
    figures: list
    job: str = "notebook {name}"
    """The command line that makes it, with the notebook's name."""

    @property
    def chapter(self):
        """Where in the report it stands."""
        return "case_studies" if self.notebook.startswith("case_") else self.notebook

    def in_report(self, path):
        """The file, to be shown in the report if a browser can show it."""
        if Path(path).suffix not in (".png", ".html"):
            return path
        return report(
            path,
            caption=f"../report/{self.chapter}.rst",
            category=CHAPTERS[self.chapter],
            labels={"file": Path(path).name},
        )


def rendered(page):
    """The files of a page."""
    return multiext(
        str(LAYOUT.notebook(page.notebook).with_suffix("")), ".ipynb", ".html"
    )
