"""What a scale will take, what it ran on, and whether its files are as they were made."""

from typing import Annotated

import typer

from transcoders.cli.app import Run, ScaleName, app, job, open_scale
from transcoders.files import write_json


@app.command()
def plan(
    scale: ScaleName,
    tflops: Annotated[
        float | None,
        typer.Option(help="10^12 float32 operations a second. Default: measured here.", min=1e-3),
    ] = None,
    memory: Annotated[
        float | None,
        typer.Option(help="GB of the largest machine. Default: this machine's.", min=1),
    ] = None,
) -> None:
    """Say what a scale takes, rule by rule, and what would not fit. Fails if anything does not.

    Models and texts on this machine are checked as the jobs that read them would check them.
    """
    import torch

    from transcoders.environment import memory_bytes
    from transcoders.plan import check_local, describe, does_not_fit, make_plan, measured_rate

    settings, layout = open_scale(scale)
    check_local(settings)
    works = make_plan(settings)
    device = "cuda" if settings.device != "cpu" and torch.cuda.is_available() else "cpu"
    rate = tflops * 1e12 if tflops else measured_rate(device)
    processor = "GPU" if device == "cuda" else "CPU"
    source = "as given" if tflops else f"measured on this machine's {processor}"
    typer.echo(describe(settings, works, rate, source))
    problems = does_not_fit(works, layout.results, memory or memory_bytes() / 1e9)
    for problem in problems:
        typer.echo(f"DOES NOT FIT: {problem}")
    if problems:
        raise typer.Exit(code=1)


@app.command()
def wheels(scale: ScaleName) -> None:
    """List the wheels that a scale fetches, as pip's requirements."""
    from transcoders.sources import wheels_of

    typer.echo("\n".join(wheels_of(open_scale(scale)[0])))


@app.command()
def verify(scale: ScaleName) -> None:
    """Check that every file of a scale, large ones too, is as it was made."""
    from transcoders.checksums import check_folders

    _, layout = open_scale(scale)
    checked = check_folders([layout.results, layout.figures])
    typer.echo(f"{checked} files are as they were made")


@job("", resources="notebook", part=lambda scale, _: scale.resources)
def record_environment(run: Run) -> None:
    """Record what a run ran on: versions, hardware, threads, commit and hashes of its settings."""
    from transcoders.environment import environment_record

    write_json(run.layout.environment, environment_record(run.scale, run.layout))
