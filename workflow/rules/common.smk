# What the other files share: `job` makes a rule, and the rest names files.

import re
from pathlib import Path
from typing import NamedTuple

from transcoders.checksums import sha256
from transcoders.cli.app import JOBS
from transcoders.contents import title_of
from transcoders.notebooks import SOURCES
from transcoders.sources import state_of_files

LOGS = LAYOUT.results / "logs"


def job(log, command, message, input, output, *, name=None, contents=()):
    """Make a rule. Its job is one command of `python -m transcoders`.

    log: names the log and the benchmark and, without the wildcard, the rule.
    command: with its argument; `{wildcards.model}` is filled in.
    input: files, or a function of the wildcards that gives them.
    name: names the rule, if the log's name does not.
    contents: hashes of files that are not inputs because their times say nothing, or a function
        of the wildcards that gives the hashes.
    """
    subcommand, *arguments = command.split()
    declared = JOBS[subcommand]
    given = declared.given(SCALE)

    def settings(wildcards):
        argument = arguments[-1].format(wildcards=wildcards) if arguments else ""
        return declared.reads(SCALE, argument)

    rule:
        name:
            name or re.sub(r"_\{\w+\}", "", log).replace("-", "_").replace(".", "_")
        input:
            input,
        output:
            output,
        log:
            LOGS / f"{log}.log",
        benchmark:
            LOGS / f"{log}.tsv"
        conda:
            "../../environment.yml"
        threads: given.threads
        resources:
            mem_mb=given.mem_mb,
            runtime=given.runtime,
            gpu=given.gpus,
        params:
            settings=settings,
            contents=contents or [],
            cli=f"python -m transcoders {subcommand} --scale {SCALE.name}",
            arguments=lambda wildcards: " ".join(arguments).format(wildcards=wildcards),
        message:
            message
        shell:
            "{params.cli} {params.arguments} --threads {threads} > {log} 2>&1"


def weights(dictionaries):
    """The weights of some dictionaries, as files."""
    return [
        LAYOUT.dictionary(dictionary.name) / "sae_weights.safetensors"
        for dictionary in dictionaries
    ]


WEIGHTS = weights([*SCALE.dictionaries, *SCALE.imported_transcoders])


def evaluated_site(wildcards):
    """What it takes to evaluate the dictionaries of a site."""
    site = SCALE.site(wildcards.site)
    return [
        *weights(SCALE.dictionaries_of(site)),
        LAYOUT.model(site.model) / "model.safetensors",
        LAYOUT.tokens(site.model) / "eval.safetensors",
        LAYOUT.documents,
        LAYOUT.activations(site.name) / "statistics.safetensors",
    ]


def states_of_files(*sources):
    """The states of the sources that are files on this machine; a state changes with its files."""
    return [state_of_files(source) for source in sources if source.type == "files"]


def any_of(names):
    """A pattern for a wildcard: one of these names."""
    return "|".join(re.escape(name) for name in names) or "none"


class Page(NamedTuple):
    """A notebook: the rule that executes it, what it reads, and the figures that it draws."""

    name: str
    notebook: str
    message: str
    tables: list
    figures: list
    job: str = "notebook {name}"
    """The command that makes it, with the notebook's name."""

    @property
    def sources(self):
        """The file of the notebook to execute, if there is one."""
        path = SOURCES / f"{self.notebook}.ipynb"
        return [path] if path.exists() else []

    @property
    def chapter(self):
        """The chapter of the report that it belongs to; workflow/report/ has its caption."""
        return "case_studies" if self.notebook.startswith("case_") else self.notebook

    def in_report(self, path):
        """Mark a file of the page for the report, if a browser can show it."""
        if path.suffix not in (".png", ".html"):
            return path
        return report(
            path,
            caption=f"../report/{self.chapter}.rst",
            category=title_of(self.chapter),
            labels={"file": path.name},
        )


def drawn(*names):
    """The files of some figures."""
    return [LAYOUT.figure(name + end) for name in names for end in (".pdf", ".png")]


def rendered(page):
    """The files of a page."""
    return [
        LAYOUT.notebook(page.notebook).with_suffix(end) for end in (".ipynb", ".html")
    ]
