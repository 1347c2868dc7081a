"""Circuits, checks of features, greater-than."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from transcoders.cli.app import ScaleName, Threads, job, section, start
from transcoders.config import Scale
from transcoders.config.studies import CircuitCase
from transcoders.errors import UserError
from transcoders.files import write_table


def _cases_of(scale: Scale, model: str) -> Any:
    cases = [case for case in scale.circuits.cases if case.model == model]
    asked = [(case.prompt, case.target, case.components) for case in cases]
    return asked, scale.model(model).bos_token


def _listed(scale: Scale, name: str | None, all_of: str | None) -> list[CircuitCase]:
    """The cases of the scale file that are asked for: of that name, or of that model."""
    if name is not None:
        return [scale.circuit_case(name)]
    if all_of is None:
        return []
    found = [case for case in scale.circuits.cases if case.model == all_of]
    if not found:
        raise UserError(
            f"config/{scale.name}.yaml: circuits.cases: expected one of {all_of}, found none"
        )
    return found


@job(
    "seed corpus.train_positions circuits.n_paths circuits.iterations circuits.text_contexts "
    "device",
    resources="circuit",
    part=_cases_of,
)
def circuit(
    scale: ScaleName,
    case: Annotated[
        str | None, typer.Option(help="A circuit of the scale file; its record goes to results/.")
    ] = None,
    all_of: Annotated[
        str | None, typer.Option(help="A model: all circuits that the scale file asks of it.")
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
    settings, layout, device = start("circuit", scale, threads)
    listed = _listed(settings, case, all_of)
    if not listed and (prompt is None or target is None):
        raise UserError("circuit: expected --case, or --prompt and --target; see --help")
    model = model or next(iter(settings.models))
    cases = listed or [
        CircuitCase.model_construct(name="asked", model=model, prompt=prompt, target=target)
    ]

    from transcoders.circuits import Search, Tracer, parse_head
    from transcoders.circuits.labels import labels_of, pages_of
    from transcoders.circuits.report import look_up, write_circuit, write_circuit_page
    from transcoders.corpus import load_rows

    model = cases[0].model
    search = Search(
        n_paths=paths or settings.circuits.n_paths,
        iterations=iterations or settings.circuits.iterations,
        layers=layers,
        heads=None if heads is None else [parse_head(head) for head in heads],
        tokens=tokens,
        exclude_bos=exclude_bos,
        sign=sign,  # type: ignore[arg-type]  # Search refuses others
    )
    tracer, circuits = Tracer.load(scale, model, device=device), []
    for entry in cases:
        of_entry = replace(search, components=tuple(components or entry.components))
        found = tracer.trace(entry.prompt, entry.target, of_entry)
        typer.echo(f"{found.target.name} = {found.target.value:.3f} on {found.tokens}")
        typer.echo(found.table())
        circuits.append(found)
    if listed or out:
        text = load_rows(layout.tokens(model), "train").tokens[: settings.circuits.text_contexts]
        known = look_up(tracer, circuits, text.to(device))
        for entry, found in zip(cases, circuits, strict=True):
            folder = layout.circuit(entry.name) if all_of or out is None else out
            name = entry.name if listed else folder.name
            write_circuit(tracer, found, known, folder, name=name, model=model, seed=settings.seed)
            if not listed:  # the workflow writes pages of cases when all features have names
                labels, pages = (of(settings, layout, model) for of in (labels_of, pages_of))
                write_circuit_page(folder, labels, pages)


@job("", resources="notebook")
def circuit_page(scale: ScaleName, case: str, threads: Threads = None) -> None:
    """Write the page and the viewers' graph of a circuit of the scale file."""
    from transcoders.circuits.labels import labels_of, pages_of
    from transcoders.circuits.report import write_circuit_page

    settings, layout, _ = start("circuit-page", scale, threads)
    model = settings.circuit_case(case).model
    labels, pages = (of(settings, layout, model) for of in (labels_of, pages_of))
    write_circuit_page(layout.circuit(case), labels, pages)


def _models_of_cases(scale: Scale, _: str) -> Any:
    names = dict.fromkeys(case.model for case in scale.circuits.cases)
    return [scale.model(name).bos_token for name in names]


@job(
    "seed corpus.train_positions corpus.metric_positions circuits.text_contexts device",
    resources="circuit",
    part=_models_of_cases,
)
def measure_replacement(scale: ScaleName, threads: Threads = None) -> None:
    """Measure what the model loses with more and more MLPs replaced by transcoders at once."""
    from transcoders.circuits.quality import replacement_quality_of

    settings, layout, device = start("measure-replacement", scale, threads)
    write_table(layout.replacement, replacement_quality_of(settings, layout, device=device))


def _checked_models(scale: Scale, _: str) -> Any:
    return [scale.model(check.model).bos_token for check in scale.circuits.checks]


@job("corpus.train_positions circuits.checks device", resources="circuit", part=_checked_models)
def check_features(scale: ScaleName, threads: Threads = None) -> None:
    """Measure how active features are on texts, and with earlier MLPs replaced."""
    from transcoders.circuits.checks import check_features_of

    settings, layout, device = start("check-features", scale, threads)
    write_table(layout.feature_checks, check_features_of(settings, device=device))


def _studied(scale: Scale, _: str) -> Any:
    study = scale.greater_than
    assert study is not None
    return study.model_dump(exclude={"published"}), scale.model(study.model).bos_token


@job(
    "seed corpus.train_positions circuits.n_paths circuits.iterations device",
    resources="greater_than",
    part=_studied,
)
def greater_than(scale: ScaleName, threads: Threads = None) -> None:
    """Find where greater-than is computed, and with how few features."""
    from transcoders.greater_than.study import study_greater_than_of

    settings, layout, device = start("greater-than", scale, threads)
    section(settings, "greater_than")
    study_greater_than_of(settings, layout, device=device)
