"""What a scale will take, what it ran on, and whether what it made is still the same."""

from typing import Annotated

import typer

from transcoders.cli.app import ScaleName, Threads, app, open_scale
from transcoders.files import write_json
from transcoders.process import prepare_process


@app.command()
def plan(
    scale: ScaleName,
    tflops: Annotated[
        float | None,
        typer.Option(
            help="Rate to reckon with, in 10^12 float32 operations a second; measured on this "
            "machine if left out.",
            min=1e-3,
        ),
    ] = None,
    gpu_memory: Annotated[
        float | None,
        typer.Option(
            help="GB of one GPU; this machine's if left out, or 80 if it has none.", min=1
        ),
    ] = None,
    memory: Annotated[
        float | None,
        typer.Option(help="GB of the largest machine; this machine's if left out.", min=1),
    ] = None,
) -> None:
    """Say what a scale takes, rule by rule, and what would not fit. Fails if something does not."""
    import pandas as pd
    import torch

    from transcoders.environment import memory_bytes
    from transcoders.plan import make_plan, measured_rate

    settings, layout = open_scale(scale)
    has_gpu = torch.cuda.is_available() and settings.device != "cpu"
    if gpu_memory is None and settings.device != "cpu":
        gpu_memory = (
            torch.cuda.get_device_properties(0).total_memory / 1e9
            if has_gpu
            else 80.0
            if settings.device == "cuda"
            else None
        )
    if memory is None:
        memory = memory_bytes() / 1e9
    device = "cuda" if has_gpu else "cpu"
    measured = tflops is None
    rate = measured_rate(device) if tflops is None else tflops * 1e12
    made = make_plan(
        settings,
        results=layout.results,
        gpu_memory_gb=gpu_memory if settings.device != "cpu" else None,
        memory_gb=memory,
    )
    on_gpu = gpu_memory is not None
    table = pd.DataFrame(
        {
            "rule": work.rule,
            "jobs": work.jobs,
            "hours": "" if work.flops is None else f"{work.flops / rate / 3600:.2f}",
            "GPU GB": f"{work.gpu_memory / 1e9:.1f}" if on_gpu and work.gpu_memory else "",
            "RAM GB": f"{work.resources.mem_mb / 1000:g}",
            "disk GB": f"{work.disk / 1e9:.2f}" if work.disk else "",
            "download GB": f"{work.download / 1e9:.2f}" if work.download else "",
        }
        for work in made.works
    )
    typer.echo(table.to_string(index=False))
    hours = sum(work.flops or 0 for work in made.works) / rate / 3600
    disk, download = (
        sum(getattr(work, what) for work in made.works) / 1e9 for what in ("disk", "download")
    )
    typer.echo(
        f"\nIn all: {hours:.1f} hours on one device, {disk:.1f} GB of disk, {download:.1f} GB of "
        "download. RAM is what the scale file allots to one job; GPU memory is a bound on the "
        "largest job."
    )
    where = f"measured on this machine's {'GPU' if has_gpu else 'CPU'}" if measured else "as given"
    typer.echo(
        f"Hours are a prediction: operations of the large products at {rate / 1e12:.3g}e12 a "
        f"second, {where}. Rules without hours take minutes."
    )
    for remark in made.remarks:
        typer.echo(remark)
    for sentence in made.does_not_fit:
        typer.echo(f"DOES NOT FIT: {sentence}")
    if made.does_not_fit:
        raise typer.Exit(code=1)


@app.command()
def verify(scale: ScaleName) -> None:
    """Compare every file that was made here, large ones too, with what it was when it was made."""
    from transcoders.checksums import check_folders

    _, layout = open_scale(scale)
    checked = check_folders([layout.results, layout.figures])
    typer.echo(f"{checked} files are as they were made")


@app.command()
def record_environment(scale: ScaleName, threads: Threads = None) -> None:
    """Record what a run ran on: versions, hardware, threads, commit, hashes of its settings."""
    from transcoders.environment import environment_record

    settings, layout = open_scale(scale)
    prepare_process(threads, settings.resources.notebook)
    write_json(layout.environment, environment_record(settings, layout))
