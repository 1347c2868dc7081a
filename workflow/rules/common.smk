# What the other rule files share: `job`, with which each of them makes its rules.

import re
from pathlib import Path

from transcoders.checksums import sha256
from transcoders.cli.app import JOBS

LOGS = LAYOUT.results / "logs"


def job(log, command, message, input, output, *, name=None, contents=()):
    """Make a rule. Its job is one command of `python -m transcoders`.

    log: the name of its log and its benchmark, and without the wildcard, of the rule.
    command: with its argument; `{wildcards.model}` is filled in.
    input: files, or a function of the wildcards that gives them.
    name: of the rule, where it is not that of the log.
    contents: files whose content counts, not their time, which says nothing in a fresh clone.
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
            contents=[sha256(path) for path in contents],
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
