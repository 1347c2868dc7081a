"""What all subcommands share."""

from typing import Annotated, Any

import typer

from transcoders.config import Scale, load_scale
from transcoders.errors import UserError
from transcoders.layout import Layout

app = typer.Typer(
    help="Transcoders find interpretable LLM feature circuits: the steps of the reproduction.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

ScaleName = Annotated[str, typer.Option("--scale", help="Name of a file in config/.")]
Threads = Annotated[
    int | None,
    typer.Option("--threads", help="Cores that were granted; must be what the scale file fixes."),
]


def open_scale(scale: str) -> tuple[Scale, Layout]:
    """The scale of that name, checked, and its paths."""
    layout = Layout(scale)
    return load_scale(layout.config), layout


def section(settings: Scale, key: str) -> Any:
    """A section that a scale may leave out, for a command that needs it."""
    section = getattr(settings, key)
    if section is None:
        raise UserError(f"config/{settings.name}.yaml: {key}: this command needs it, found none")
    return section
