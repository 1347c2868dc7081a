"""The whole study, from a model with transcoders to the tables under ``greater_than/``."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from transcoders.circuits.paths import Search
from transcoders.circuits.trace import Tracer
from transcoders.config import GreaterThan, Scale
from transcoders.dictionaries import SparseDictionary
from transcoders.errors import UserError
from transcoders.files import made_folder, write_json, write_table
from transcoders.greater_than import years
from transcoders.greater_than.recurring import COMPONENTS, Recurring
from transcoders.greater_than.sweep import (
    BadFeature,
    Resampler,
    catch_up,
    curve_table,
    find_bad_feature,
    interval,
    mean_height,
    sweep,
    without,
)
from transcoders.greater_than.task import Numbers, make_prompts
from transcoders.greater_than.units import ChosenMLP, UnitKind
from transcoders.greater_than.where import Attributions, Chosen, ablate, attribute, choose
from transcoders.layout import Layout


def study_greater_than(
    tracer: Tracer,
    settings: GreaterThan,
    load_sae: Callable[[int], SparseDictionary | None],
    destination: Path,
    *,
    n_paths: int,
    iterations: int,
    seed: int,
) -> None:
    """Run the study and write its tables, all or nothing.

    Args:
        tracer: the model, its transcoders and its tokenizer.
        settings: templates, numbers of units kept, features shown.
        load_sae: gives the SAE on the MLP's output of a layer, if there is one.
        destination: a folder.
        n_paths: of Algorithm 1.
        iterations: of Algorithm 1.
        seed: of the intervals.

    Raises:
        UserError: the tokenizer writes numbers neither in pairs of digits nor in digits, more
            units are to be kept than there are, or no feature changes with the year.
    """
    circuit = tracer.circuit
    numbers = Numbers.of(tracer.tokenizer)
    prompts = make_prompts(settings.templates, tracer.tokenizer, tracer.bos_id)

    recurring = Recurring(Search(n_paths, iterations, COMPONENTS))
    attributions = attribute(circuit, numbers, prompts, recurring.add)
    next_token_difference, ablations = ablate(circuit, numbers, prompts)
    chosen = choose(circuit, attributions)

    dictionaries: dict[UnitKind, SparseDictionary] = {
        "transcoder": circuit.transcoders[chosen.layer]
    }
    if (sae := load_sae(chosen.layer)) is not None:
        dictionaries["mlp_out_sae"] = sae
    mlp = ChosenMLP(
        circuit.model,
        numbers,
        prompts,
        chosen.layer,
        dictionaries,
        first_position=None if settings.positions == "predicting" else circuit.first_position,
    )
    fewest = min(units.n_units for units in mlp.units.values())
    if settings.kept[-1] > fewest:
        raise UserError(
            f"greater_than.kept: {settings.kept[-1]} units, expected at most {fewest}, which is "
            f"how many there are at layer {chosen.layer}"
        )
    resampler = Resampler(seed)
    curves = {kind: sweep(mlp, kind, settings.kept) for kind in mlp.units}
    # Of all curves at the same numbers, so before that of the transcoder gets more points.
    mean_heights = {kind: mean_height(curve, resampler) for kind, curve in curves.items()}
    caught_up = {
        kind: catch_up(curve, curves["neurons"], resampler)
        for kind, curve in curves.items()
        if kind != "neurons"
    }
    bad = find_bad_feature(mlp, curves["transcoder"], resampler)
    metrics = _metrics(mlp, bad)
    drawn = list(curves.values())
    if bad is not None:
        drawn.append(without(mlp, curves["transcoder"], bad.unit, settings.kept))
    features, by_year = _describe_features(tracer, numbers, mlp, chosen, bad, settings)

    with made_folder(destination) as folder:
        write_table(folder / "where.csv", _join(ablations, attributions, chosen, tracer))
        write_table(folder / "metric.csv", _metric_table(metrics))
        write_table(folder / "curves.csv", curve_table(drawn, resampler))
        write_table(folder / "features.csv", features)
        write_table(folder / "features_by_year.csv", by_year)
        write_table(folder / "recurring.csv", recurring.table())
        write_table(folder / "paths.csv", recurring.examples())
        summary = {
            "model": settings.model,
            "templates": settings.templates,
            "numbers": numbers.style,
            "positions": settings.positions,
            "layers_with_transcoder": list(circuit.transcoders),
            "prompts_attributed": recurring.n_prompts,
            "logit_difference": attributions.value,
            "next_token_difference": next_token_difference,
            "layer": chosen.layer,
            "head": f"attn{chosen.head[0]}[{chosen.head[1]}]",
            "metric": {
                name: resampler.estimate(values).record() for name, values in metrics.items()
            },
            "mean_of_curve": {
                kind: interval(areas).record() for kind, areas in mean_heights.items()
            },
            "mean_above_neurons": {
                kind: interval(areas - mean_heights["neurons"]).record()
                for kind, areas in mean_heights.items()
                if kind != "neurons"
            },
            "neurons_catch_up": {
                kind: interval(numbers_kept).record() for kind, numbers_kept in caught_up.items()
            },
            "bad_features": [] if bad is None else [bad.record()],
        }
        write_json(folder / "summary.json", summary)


def _metrics(mlp: ChosenMLP, bad: BadFeature | None) -> dict[str, Float[Tensor, "template 100"]]:
    """The metric of every prompt in the model as it is, and with its MLP replaced or removed."""
    metrics = {"original": mlp.metrics()}
    for kind, units in mlp.units.items():
        if kind != "neurons":
            metrics[kind] = mlp.with_kept(kind, torch.arange(units.n_units))
    if bad is not None:
        everything = torch.arange(mlp.units["transcoder"].n_units)
        metrics["transcoder_without_bad"] = mlp.with_kept(
            "transcoder", everything[everything != bad.unit]
        )
    metrics["removed"] = mlp.with_kept("neurons", torch.arange(0))
    return metrics


def _metric_table(metrics: dict[str, Float[Tensor, "template 100"]]) -> pd.DataFrame:
    """Rows ``template, year`` and a column for each model."""
    n_templates = len(next(iter(metrics.values())))
    return pd.DataFrame(
        {
            "template": [number for number in range(1, n_templates + 1) for _ in range(100)],
            "year": list(range(100)) * n_templates,
            **{name: values.flatten().numpy() for name, values in metrics.items()},
        }
    )


def _join(
    ablations: pd.DataFrame, found: Attributions, chosen: Chosen, tracer: Tracer
) -> pd.DataFrame:
    """``where.csv``: ablations with attributions, and what heads carry to the chosen MLP."""
    into = found.into_mlps[chosen.layer]
    is_mlp = ablations["kind"] == "mlp"
    places = list(zip(ablations["layer"], ablations["head"], strict=True))
    return ablations.assign(
        attribution=[
            found.mlps[layer].item() if head < 0 else found.heads[layer, head].item()
            for layer, head in places
        ],
        into_chosen_mlp=[
            float("nan") if head < 0 else into[layer, head].item() for layer, head in places
        ],
        has_transcoder=is_mlp & ablations["layer"].isin(list(tracer.circuit.transcoders)),
    )


def _describe_features(
    tracer: Tracer,
    numbers: Numbers,
    mlp: ChosenMLP,
    chosen: Chosen,
    bad: BadFeature | None,
    settings: GreaterThan,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """``features.csv``: all that are ever kept; ``features_by_year.csv``: the first and the bad."""
    at_last = mlp.at_last("transcoder")
    variance = at_last.var(dim=1).mean(dim=0)
    ranking = mlp.ranking("transcoder")[: settings.kept[-1]]
    is_bad = ranking == (-1 if bad is None else bad.unit)
    ranks = ((variance[ranking] > 0) | is_bad).nonzero()[:, 0]
    features: Int[Tensor, " feature"] = ranking[ranks]
    if not len(features):
        raise UserError(
            f"greater_than: no feature of the transcoder at layer {chosen.layer} changes with the "
            "year; it may have learned nothing: look at its training.csv and evaluation.csv"
        )
    activations = at_last[:, :, features].mean(dim=0).T.cpu()  # (feature, year), over templates
    dla = years.year_logits(tracer.circuit, numbers, chosen.layer, features).cpu()
    read = years.year_de_embeddings(
        tracer.circuit, numbers, chosen.layer, features, chosen.head,
        n_upstream=settings.n_upstream_features,
    ).cpu()  # fmt: skip
    described = pd.DataFrame(
        [
            {
                "feature": f"tc{chosen.layer}[{unit}]",
                "rank": rank + 1,
                "variance": variance[unit].item(),
                "step": years.step(z, logits, numbers),
                "agreement": years.agreement(z, drive, numbers),
                "bad": bad is not None and unit == bad.unit,
            }
            for unit, rank, z, logits, drive in zip(
                features.tolist(), ranks.tolist(), activations, dla, read, strict=True
            )
        ]
    )
    shown = described[(described["rank"] <= settings.n_features) | described["bad"]]
    by_year = [
        pd.DataFrame(
            {
                "feature": row["feature"],
                "quantity": quantity,
                "number": range(values.shape[1]),
                "value": values[place].numpy(),
            }
        )
        for place, row in zip(shown.index.tolist(), shown.to_dict("records"), strict=True)
        for quantity, values in (("activation", activations), ("dla", dla), ("de_embedding", read))
    ]
    return described, pd.concat(by_year, ignore_index=True)


def study_greater_than_of(scale: Scale, layout: Layout, *, device: str = "cpu") -> None:
    """Run the study of a scale with its headline transcoders and SAEs on MLP outputs."""
    study = scale.greater_than
    assert study is not None
    saes = {entry.site.layer: entry.name for entry in scale.headlines(study.model, "mlp_out_sae")}

    def load_sae(layer: int) -> SparseDictionary | None:
        if layer not in saes:
            return None
        return SparseDictionary.from_pretrained(layout.dictionary(saes[layer])).to(device)

    study_greater_than(
        Tracer.load(scale.name, study.model, device=device),
        study,
        load_sae,
        layout.greater_than,
        n_paths=scale.circuits.n_paths,
        iterations=scale.circuits.iterations,
        seed=scale.seed,
    )
