"""Circuits, checks of features, greater-than."""

from pathlib import Path
from typing import Annotated

import typer

from transcoders.cli.app import ScaleName, Threads, app, open_scale, section
from transcoders.errors import UserError
from transcoders.files import write_table
from transcoders.process import prepare_process


@app.command()
def circuit(
    scale: ScaleName,
    case: Annotated[
        str | None, typer.Option(help="A circuit of the scale file; its files go to results/.")
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="Any text, in place of a case.")] = None,
    target: Annotated[
        str | None, typer.Option(help="tc24\\[123]@-1, tc24\\[top]@-1 or logit\\[a]-logit\\[b]@-1.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="A model of the scale; else the first.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the files of the circuit.")] = None,
    paths: Annotated[int | None, typer.Option(help="Paths kept in each round.")] = None,
    iterations: Annotated[int | None, typer.Option(help="Rounds of the search.")] = None,
    components: Annotated[
        list[str] | None, typer.Option("--component", help="feature, head, mlp, embed or error.")
    ] = None,
    layers: Annotated[
        list[int] | None, typer.Option("--layer", help="Layers that paths run through.")
    ] = None,
    heads: Annotated[list[str] | None, typer.Option("--head", help="As attn9[1].")] = None,
    tokens: Annotated[list[int] | None, typer.Option("--token", help="Position.")] = None,
    exclude_bos: Annotated[bool, typer.Option("--exclude-bos", help="Leave out token 0.")] = False,
    sign: Annotated[str, typer.Option(help="positive, negative or both.")] = "positive",
    threads: Threads = None,
) -> None:
    """Find the circuit of a feature or logit on a prompt, and print its strongest paths."""
    settings, layout = open_scale(scale)
    device = prepare_process(threads, settings.resources.circuit, settings.device)
    if case is not None:
        entry = settings.circuit_case(case)
        prompt, target, model = entry.prompt, entry.target, entry.model
        components = components or list(entry.components)
        out = out or layout.circuit(case)
    if prompt is None or target is None:
        raise UserError("circuit: expected --case, or --prompt and --target; see --help")

    from transcoders.circuits import Search, Tracer, parse_head
    from transcoders.circuits.report import write_circuit
    from transcoders.corpus import load_rows

    model = model or next(iter(settings.models))
    search = Search(
        n_paths=paths or settings.circuits.n_paths,
        iterations=iterations or settings.circuits.iterations,
        components=tuple(components or Search.components),
        layers=layers,
        heads=None if heads is None else [parse_head(head) for head in heads],
        tokens=tokens,
        exclude_bos=exclude_bos,
        sign=sign,  # type: ignore[arg-type]  # Search refuses what is none
    )
    tracer = Tracer.load(scale, model, device=device)
    found = tracer.trace(prompt, target, search)
    typer.echo(f"{found.target.name} = {found.target.value:.3f} on {found.tokens}")
    typer.echo(found.table())
    if out is not None:
        rows = load_rows(layout.tokens(model), "train").tokens
        write_circuit(
            tracer,
            found,
            rows[: settings.circuits.text_contexts].to(device),
            out,
            name=case or out.name,
            model=model,
            prompt=prompt,
            settings=vars(search),
        )


@app.command()
def check_features(scale: ScaleName, threads: Threads = None) -> None:
    """Measure how active features are on texts, and with earlier MLPs replaced."""
    import pandas as pd

    from transcoders.circuits import Tracer
    from transcoders.circuits.checks import check_features

    settings, layout = open_scale(scale)
    device = prepare_process(threads, settings.resources.circuit, settings.device)
    checks = settings.circuits.checks
    tables = [
        check_features(
            Tracer.load(scale, model, device=device), [c for c in checks if c.model == model]
        )
        for model in dict.fromkeys(check.model for check in checks)
    ]
    write_table(layout.feature_checks, pd.concat(tables) if tables else pd.DataFrame())


@app.command()
def greater_than(scale: ScaleName, threads: Threads = None) -> None:
    """Find where greater-than is computed, and with how few features."""
    from transcoders.circuits import Tracer
    from transcoders.dictionaries import SparseDictionary
    from transcoders.greater_than import study_greater_than

    settings, layout = open_scale(scale)
    device = prepare_process(threads, settings.resources.greater_than, settings.device)
    study = section(settings, "greater_than")
    saes = {entry.site.layer: entry for entry in settings.headlines(study.model, "mlp_out_sae")}

    def load_sae(layer: int) -> SparseDictionary | None:
        if layer not in saes:
            return None
        return SparseDictionary.from_pretrained(layout.dictionary(saes[layer].name)).to(device)

    study_greater_than(
        Tracer.load(scale, study.model, device=device),
        study,
        load_sae,
        layout.greater_than,
        n_paths=settings.circuits.n_paths,
        iterations=settings.circuits.iterations,
        seed=settings.seed,
    )
