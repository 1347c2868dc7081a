"""Circuits, checks of features, greater-than."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from transcoders.cli.app import JOBS, Run, ScaleName, app, job, section, start
from transcoders.config import Scale
from transcoders.errors import UserError
from transcoders.files import write_table
from transcoders.layout import ARTICLE

if TYPE_CHECKING:
    from transcoders.circuits import Tracer
    from transcoders.circuits.trace import Circuit


def _cases_of(scale: Scale, model: str) -> Any:
    cases = [case for case in scale.circuits.cases if case.model == model]
    asked = [(case.prompt, case.target, case.components, case.exclude_bos) for case in cases]
    return asked, scale.model(model).bos_token


@job(
    "seed corpus.train_positions circuits.n_paths circuits.iterations circuits.sign "
    "circuits.text_contexts device",
    resources="circuit",
    part=_cases_of,
)
def find_circuits(run: Run, model: str) -> None:
    """Find all circuits that the scale file asks of a model."""
    from transcoders.circuits import Search, Tracer

    asked = run.scale.circuits
    cases = [case for case in asked.cases if case.model == model]
    if not cases:
        raise UserError(
            f"{run.layout.config}: circuits.cases: expected a case of {model}, found none"
        )
    tracer, circuits = Tracer.load(run.scale.name, model, device=run.device), {}
    for case in cases:
        search = Search(
            n_paths=asked.n_paths,
            iterations=asked.iterations,
            components=tuple(case.components),
            exclude_bos=case.exclude_bos,
            sign=asked.sign,
        )
        found = tracer.trace(case.prompt, case.target, search)
        circuits[run.layout.circuit(case.name)] = _printed(found)
    _write(run, tracer, model, circuits)


@app.command()
def circuit(
    scale: ScaleName,
    prompt: Annotated[str, typer.Option(help="Any text.")],
    target: Annotated[
        str, typer.Option(help="tc24\\[123]@-1, tc24\\[top]@-1 or logit\\[a]-logit\\[b]@-1.")
    ],
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
    sign: Annotated[
        str | None, typer.Option(help="positive, negative or both; else as in the scale file.")
    ] = None,
) -> None:
    """Find the circuit of a feature or logit on a prompt, and print its strongest paths."""
    run = start(JOBS["find-circuits"], scale, None)
    from transcoders.circuits import Search, Tracer, parse_head

    usual, model = run.scale.circuits, model or next(iter(run.scale.models))
    search = Search(
        n_paths=usual.n_paths if paths is None else paths,
        iterations=usual.iterations if iterations is None else iterations,
        components=tuple(components or Search.components),
        layers=layers,
        heads=None if heads is None else [parse_head(head) for head in heads],
        tokens=tokens,
        exclude_bos=exclude_bos,
        sign=sign or usual.sign,  # type: ignore[arg-type]  # Search refuses others
    )
    tracer = Tracer.load(scale, model, device=run.device)
    found = _printed(tracer.trace(prompt, target, search))
    if out:
        _write(run, tracer, model, {out: found})
        _write_page(run, model, out)


def _printed(found: "Circuit") -> "Circuit":
    typer.echo(f"{found.target.name} = {found.target.value:.3f} on {found.tokens}")
    typer.echo(found.table())
    return found


def _write(run: Run, tracer: "Tracer", model: str, circuits: "dict[Path, Circuit]") -> None:
    """Write circuits of a model, each named as its folder, with what is known of their features."""
    from transcoders.circuits.report import look_up, write_circuit
    from transcoders.corpus import load_rows

    rows = load_rows(run.layout.tokens(model), "train").tokens[: run.scale.circuits.text_contexts]
    known = look_up(tracer, list(circuits.values()), rows.to(run.device))
    for folder, found in circuits.items():
        name, seed = folder.name, run.scale.seed
        write_circuit(tracer, found, known, folder, name=name, model=model, seed=seed)


@job("", resources="notebook")
def circuit_page(run: Run, case: str) -> None:
    """Write the page and the viewers' graph of a circuit of the scale file."""
    _write_page(run, run.scale.circuit_case(case).model, run.layout.circuit(case), ARTICLE)


def _write_page(run: Run, model: str, folder: Path, article: Path | None = None) -> None:
    from transcoders.circuits.labels import browser_pages, labels_of
    from transcoders.circuits.report import write_circuit_page

    labels = labels_of(run.scale, run.layout, model)
    write_circuit_page(folder, labels, browser_pages(run.scale, run.layout, model), article)


def _of_replacement(scale: Scale, _: str) -> Any:
    names = dict.fromkeys(case.model for case in scale.circuits.cases)
    return [scale.rows_for_circuits, *(scale.model(name).bos_token for name in names)]


@job(
    "seed corpus.train_positions corpus.metric_positions circuits.text_contexts device",
    resources="circuit",
    part=_of_replacement,
)
def measure_replacement(run: Run) -> None:
    """Measure what the model loses with more and more MLPs replaced by transcoders at once."""
    from transcoders.circuits.quality import replacement_quality_of

    write_table(
        run.layout.replacement, replacement_quality_of(run.scale, run.layout, device=run.device)
    )


@app.command()
def attention(
    scale: ScaleName,
    prompt: Annotated[str, typer.Option(help="Any text.")],
    head: Annotated[str, typer.Option(help="As attn9\\[1].")],
    key: Annotated[int, typer.Option(help="The token that the head reads.")],
    query: Annotated[int, typer.Option(help="The token that it writes at.")] = -1,
    model: Annotated[str | None, typer.Option(help="A model of the scale; else the first.")] = None,
    pairs: Annotated[int, typer.Option(min=1, help="Pairs to list.")] = 20,
) -> None:
    """Say why a head reads a token: its score before the softmax, split over pairs of parts."""
    device = start(JOBS["find-circuits"], scale, None).device
    from transcoders.circuits import Tracer, attention_score, parse_head

    at, unit = parse_head(head)
    local = Tracer.load(scale, model, device=device).freeze(prompt)
    found = attention_score(local, at, unit, query, key)
    typer.echo(
        f"{found.head} from token {found.query} to token {found.key}: score {found.score:.3f}, "
        f"{found.above_mean:+.3f} above the mean over all keys; attention {found.probability:.3f}"
    )
    typer.echo(
        found.table(pairs)[["contribution", "query_part", "key_part"]].to_string(index=False)
    )


def _checked_models(scale: Scale, _: str) -> Any:
    return [scale.model(check.model).bos_token for check in scale.circuits.checks]


@job("corpus.train_positions circuits.checks device", resources="circuit", part=_checked_models)
def check_features(run: Run) -> None:
    """Measure how active features are on texts, and with earlier MLPs replaced."""
    from transcoders.circuits.checks import check_features_of

    write_table(run.layout.feature_checks, check_features_of(run.scale, device=run.device))


def _studied(scale: Scale, _: str) -> Any:
    study = scale.greater_than
    assert study is not None
    return study.model_dump(exclude={"published"}), scale.model(study.model).bos_token


@job(
    "seed corpus.train_positions circuits.n_paths circuits.iterations circuits.sign device",
    resources="greater_than",
    part=_studied,
)
def greater_than(run: Run) -> None:
    """Find where greater-than is computed, and with how few features."""
    from transcoders.greater_than.study import study_greater_than_of

    section(run.scale, "greater_than")
    study_greater_than_of(run.scale, run.layout, device=run.device)
