"""What all subcommands share, and what each job of the workflow reads of a scale file."""

from collections.abc import Callable
from functools import wraps
from inspect import Parameter, Signature, signature
from operator import attrgetter
from typing import Annotated, Any, NamedTuple

import typer
from pydantic_core import to_jsonable_python

from transcoders.config import Resources, Scale, load_scale
from transcoders.errors import UserError
from transcoders.layout import Layout
from transcoders.process import prepare_process, set_environment

app = typer.Typer(
    help="Transcoders find interpretable LLM feature circuits: the steps of the reproduction.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

ScaleName = Annotated[str, typer.Option("--scale", help="Name of a file in config/.")]
Threads = Annotated[
    int | None,
    typer.Option("--threads", help="Cores that the job has; must be as many as the scale says."),
]


class Job(NamedTuple):
    """What a command of the workflow reads of a scale: Snakemake runs it again when this changes.

    A command finds its files through the scale too, by the names of models, sites and dictionaries.
    These names are not declared, since Snakemake compares the files of a job itself.
    """

    resources: str
    """The key in ``resources`` that says what the job is given."""
    keys: tuple[str, ...]
    """Keys that the command reads whatever its argument is, dotted."""
    part: Callable[[Scale, str], Any] | None
    """What it reads for its argument: of one model, group, site, circuit or page."""
    trains: bool
    """Whether it trains, with the precision that the scale says."""

    def given(self, scale: Scale) -> Resources:
        """Threads, memory, minutes and GPUs of the job."""
        return getattr(scale.resources, self.resources)

    def reads(self, scale: Scale, argument: str) -> dict[str, Any]:
        """What the job reads, by key, as plain data.

        Args:
            scale: the scale.
            argument: of the command; empty if it takes none.
        """
        given = f"resources.{self.resources}"
        # Instructions and threads change how sums round, and without a GPU a job takes the CPU.
        keys = (*self.keys, "instruction_set", f"{given}.threads", f"{given}.gpus")
        part = {"part": self.part(scale, argument)} if self.part else {}
        return to_jsonable_python({key: attrgetter(key)(scale) for key in keys} | part)


class Run(NamedTuple):
    """What a job works with."""

    scale: Scale
    layout: Layout
    device: str
    """``cpu`` or ``cuda``."""


JOBS: dict[str, Job] = {}
"""The commands that rules of the workflow call, by name."""


def job(
    keys: str,
    *,
    resources: str,
    part: Callable[[Scale, str], Any] | None = None,
    trains: bool = False,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a function as the subcommand of its name, and note what it reads of a scale.

    The function takes a :class:`Run` and its own arguments. The subcommand has
    the options ``--scale`` and ``--threads`` in place of the first.

    Args:
        keys: the keys that the command always reads, dotted, with spaces between them.
        resources: the key in ``resources`` that says what the job is given.
        part: what the command reads for its argument.
        trains: whether it trains.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        this = Job(resources, tuple(keys.split()), part, trains)

        @wraps(function)
        def command(*, scale: str, threads: int | None = None, **arguments: Any) -> None:
            function(start(this, scale, threads), **arguments)

        _, *own = signature(function).parameters.values()
        parameters = [
            Parameter("scale", Parameter.KEYWORD_ONLY, annotation=ScaleName),
            *(parameter.replace(kind=Parameter.KEYWORD_ONLY) for parameter in own),
            Parameter("threads", Parameter.KEYWORD_ONLY, default=None, annotation=Threads),
        ]
        command.__signature__ = Signature(parameters)  # type: ignore[attr-defined]  # typer reads it
        command.__annotations__ = {each.name: each.annotation for each in parameters}
        JOBS[function.__name__.replace("_", "-")] = this
        return app.command()(command)

    return register


def start(this: Job, scale: str, threads: int | None) -> Run:
    """Load a scale and prepare this process for a job, before it imports what computes.

    Args:
        this: the job.
        scale: the name of the scale.
        threads: cores that the job has; None if nobody counted.

    Raises:
        UserError: the scale is not valid or leaves out a section that the command reads, or the
            process cannot be prepared.
    """
    settings, layout = open_scale(scale)
    set_environment(settings.instruction_set)
    for key in this.keys:
        section(settings, key.partition(".")[0])
    device = settings.device if "device" in this.keys else "cpu"
    tf32 = this.trains and section(settings, "training").precision == "tf32"
    given = this.given(settings)
    prepared = prepare_process(threads, given, device, keep_freed_memory=this.trains, tf32=tf32)
    return Run(settings, layout, prepared)


def open_scale(scale: str) -> tuple[Scale, Layout]:
    """The scale of that name, checked, and its paths."""
    layout = Layout(scale)
    return load_scale(layout.config), layout


def section(settings: Scale, key: str) -> Any:
    """The section of a scale for a command that needs it.

    Raises:
        UserError: the scale leaves it out.
    """
    found = getattr(settings, key)
    if found is None:
        raise UserError(f"config/{settings.name}.yaml: {key}: this command needs it, found none")
    return found
