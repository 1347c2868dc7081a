"""The whole study, from a model with transcoders to the tables under ``greater_than/``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from transcoders.circuits.paths import Search
from transcoders.circuits.replacement import ReplacementModel
from transcoders.circuits.trace import Tracer
from transcoders.config import GreaterThan, Scale
from transcoders.dictionaries import SparseDictionary
from transcoders.errors import UserError
from transcoders.files import made_folder, write_json, write_table
from transcoders.greater_than import estimates, years
from transcoders.greater_than.ablations import ablate, leads, part_name
from transcoders.greater_than.task import Numbers, Prompts, make_prompts
from transcoders.greater_than.units import ChosenMLP
from transcoders.greater_than.where import COMPONENTS, attribute, choose, where_table
from transcoders.layout import Layout


def study_greater_than(
    tracer: Tracer,
    settings: GreaterThan,
    saes: Mapping[int, SparseDictionary],
    destination: Path,
    *,
    search: Search,
    seed: int,
) -> None:
    """Run the study and write its tables, all or nothing.

    Args:
        tracer: the model, its transcoders and its tokenizer.
        settings: templates, numbers of units to keep, number of features to show.
        saes: those on MLP outputs, by layer. The chosen MLP need not have one.
        destination: a folder.
        search: for the paths of every prompt.
        seed: of the intervals.

    Raises:
        UserError: the tokenizer does not write years as the study needs it, ``kept`` asks for more
            units than there are, or no feature changes with the year.
    """
    replacement = tracer.replacement
    # The task.
    numbers = Numbers.of(tracer.tokenizer)
    prompts = make_prompts(settings.templates, tracer.tokenizer, tracer.bos_id)
    # Where the model does it: one MLP and one head.
    layer, head, about_place, tables = _find_place(replacement, numbers, prompts, search, seed)
    # How few units of that MLP carry it.
    units = {"transcoder": replacement.transcoders[layer]}
    if layer in saes:
        units["mlp_out_sae"] = saes[layer]
    first = None if settings.positions == "predicting" else replacement.first_position
    mlp = ChosenMLP(replacement.model, numbers, prompts, layer, units, first_position=first)
    curves, bad, about_curves = _keep_few(mlp, sorted(settings.kept), seed)
    metrics = _metrics(mlp, bad)
    # What its features say about years.
    features, by_year, own_above_others = _describe_features(tracer, mlp, head, bad, settings, seed)
    summary = {
        "model": settings.model,
        "templates": settings.templates,
        "numbers": numbers.style,
        "positions": settings.positions,
        **about_place,
        "metric": {
            name: estimates.over_years(m, seed=seed).record() for name, m in metrics.items()
        },
        **about_curves,
        "own_above_others": own_above_others,
    }
    tables |= {"metric": _metric_table(metrics), "curves": curves}
    tables |= {"features": features, "features_by_year": by_year}
    with made_folder(destination) as folder:
        for name, table in tables.items():
            write_table(folder / f"{name}.csv", table)
        write_json(folder / "summary.json", summary)


def _find_place(
    replacement: ReplacementModel,
    numbers: Numbers,
    prompts: list[Prompts],
    search: Search,
    seed: int,
) -> tuple[int, tuple[int, int], dict[str, Any], dict[str, pd.DataFrame]]:
    """The chosen layer and head, what a summary says of them, and the tables that show it."""
    attributed = attribute(replacement, numbers, prompts, search)
    difference, ablations, losses = ablate(replacement, numbers, prompts)
    layer, head = choose(replacement, attributed)
    about = {
        "layers_with_transcoder": list(replacement.transcoders),
        "prompts_attributed": attributed.n_prompts,
        "logit_difference": attributed.value,
        "next_token_difference": difference,
        "layer": layer,
        "head": part_name(*head),
        "leads": leads(ablations, losses, layer, head, seed=seed),
    }
    tables = {
        "where": where_table(replacement, ablations, attributed, layer),
        "recurring": attributed.recurring,
        "paths": attributed.examples,
    }
    return layer, head, about, tables


def _keep_few(
    mlp: ChosenMLP, kept: list[int], seed: int
) -> tuple[pd.DataFrame, int, dict[str, Any]]:
    """``curves.csv``, the feature that does most harm, and what a summary says of both."""
    fewest = min(units.n_units for units in mlp.units.values())
    if kept[-1] > fewest:
        raise UserError(
            f"greater_than.kept: {kept[-1]} units, expected at most {fewest}, the number of units "
            f"at layer {mlp.layer}; lower it"
        )
    # The transcoder's features are added one by one, so that the harm of each is known.
    at = dict.fromkeys(mlp.units, kept) | {"transcoder": range(kept[-1] + 1)}
    curves = {kind: mlp.curve(kind, at[kind]) for kind in mlp.units}
    at_kept = {kind: {n: curve[n] for n in kept} for kind, curve in curves.items()}
    neurons = at_kept.pop("neurons")
    compared = {
        name: {kind: compare(curve, neurons, seed=seed).record() for kind, curve in at_kept.items()}
        for name, compare in (
            ("few_above_neurons", estimates.few_above),
            ("neurons_catch_up", estimates.catch_up),
        )
    }
    place, drop = estimates.most_harmful(estimates.drops_of(curves["transcoder"]), seed=seed)
    bad = int(mlp.ranking("transcoder")[place])
    curves["transcoder_without_bad"] = mlp.curve("transcoder", kept, without=bad)
    harmful = {"unit": bad, "rank": place + 1, "drop": drop.record()}
    return _curve_table(curves, seed), bad, {**compared, "harmful_feature": harmful}


def _curve_table(curves: dict[str, estimates.Curve], seed: int) -> pd.DataFrame:
    """Rows ``curve, kept, template, metric, low, high``; template ``all`` is their mean."""
    rows = [
        (name, n_kept, str(number or "all"), *estimates.over_years(chosen, seed=seed)[:3])
        for name, curve in curves.items()
        for n_kept, values in curve.items()
        for number, chosen in enumerate([values, *values.split(1)])
    ]
    return pd.DataFrame(rows, columns=["curve", "kept", "template", "metric", "low", "high"])


def _metrics(mlp: ChosenMLP, bad: int) -> dict[str, Float[Tensor, "template 100"]]:
    """The metric of every prompt in the model as it is, and with its MLP replaced or removed."""
    whole = {kind: torch.arange(units.n_units) for kind, units in mlp.units.items()}
    neurons, features = whole.pop("neurons"), whole["transcoder"]
    return {
        "original": mlp.metrics(),
        **{kind: mlp.metrics(kind, units) for kind, units in whole.items()},
        "transcoder_without_bad": mlp.metrics("transcoder", features[features != bad]),
        "removed": mlp.metrics("neurons", neurons[:0]),
    }


def _metric_table(metrics: dict[str, Float[Tensor, "template 100"]]) -> pd.DataFrame:
    """Rows ``template, year`` and a column for each model."""
    columns = {name: values.flatten().numpy() for name, values in metrics.items()}
    places = np.arange(len(columns["original"]))
    return pd.DataFrame({"template": places // 100 + 1, "year": places % 100, **columns})


def _describe_features(
    tracer: Tracer,
    mlp: ChosenMLP,
    head: tuple[int, int],
    bad: int,
    settings: GreaterThan,
    seed: int,
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """``features.csv``: all that are ever kept; ``features_by_year.csv``: the first and the bad.

    Third, how much more the first features agree with their own weights than with others'.
    """
    replacement, numbers, layer = tracer.replacement, mlp.numbers, mlp.layer
    variance, ranking = mlp.variance("transcoder"), mlp.ranking("transcoder")[: max(settings.kept)]
    if not (variance > 0).any():
        raise UserError(
            f"greater_than: no feature of the transcoder at layer {layer} changes with the year; "
            "it may have learned nothing: look at its training.csv and evaluation.csv"
        )
    ranks = ((variance[ranking] > 0) | (ranking == bad)).nonzero()[:, 0]
    features = ranking[ranks]
    activations = mlp.at_last("transcoder")[:, :, features].mean(dim=0).T.cpu()  # (feature, year)
    dla = years.year_logits(replacement, numbers, layer, features).cpu()
    read = years.year_de_embeddings(
        replacement, numbers, layer, features, head, n_upstream=settings.n_upstream_features
    ).cpu()
    places = range(len(features))
    table = pd.DataFrame(
        {
            "feature": [f"tc{layer}[{unit}]" for unit in features.tolist()],
            "rank": ranks.cpu() + 1,
            "variance": variance[features].cpu(),
            "step": [years.step(activations[i], dla[i], numbers) for i in places],
            "agreement": [years.agreement(activations[i], read[i], numbers) for i in places],
            "bad": (features == bad).cpu(),
        }
    )
    quantities = {"activation": activations, "dla": dla, "de_embedding": read}
    by_year = [
        (feature, quantity, number, value)
        for place, feature, rank, harms in table[["feature", "rank", "bad"]].itertuples()
        if rank <= settings.n_features or harms
        for quantity, values in quantities.items()
        for number, value in enumerate(values[place].numpy())
    ]
    # In standard deviations of the logits, so that features of any size can be compared.
    scaled = dla / dla.std(dim=1, keepdim=True)
    first = range(min(years.LOOKED_AT, len(features)))
    own_above_others = {
        name: years.above_others(
            np.array([[measure(activations[i], of[j], numbers) for j in first] for i in first]),
            seed=seed,
        )
        for name, measure, of in (
            ("step", years.step, scaled),
            ("agreement", years.agreement, read),
        )
    }
    columns = ["feature", "quantity", "number", "value"]
    return table, pd.DataFrame(by_year, columns=columns), own_above_others


def study_greater_than_of(scale: Scale, layout: Layout, *, device: str = "cpu") -> None:
    """Run the study of a scale with its headline transcoders and SAEs on MLP outputs."""
    study, circuits = scale.greater_than, scale.circuits
    assert study is not None
    saes = {
        entry.site.layer: SparseDictionary.from_pretrained(layout.dictionary(entry.name)).to(device)
        for entry in scale.headlines(study.model, "mlp_out_sae")
    }
    study_greater_than(
        Tracer.load(scale.name, study.model, device=device),
        study,
        saes,
        layout.greater_than,
        search=Search(circuits.n_paths, circuits.iterations, COMPONENTS, sign=circuits.sign),
        seed=scale.seed,
    )
