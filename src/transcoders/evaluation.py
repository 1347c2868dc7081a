"""What a dictionary costs the model: every column of ``evaluation.csv``.

All dictionaries of a site are measured on the same held-out rows in one process. The model runs
once for each batch; for every dictionary and both bounds, only the layers after the site run again.
A dictionary after layer 20 of 30 takes a quarter of the time of the model and both bounds. So the
same work in jobs of three dictionaries each would take twice as long in all.

Cross entropy (CE, in nats) is that of the next token, and L0 the number of active features, both
averaged over the metric positions of all rows. The interval of CE is that of the *paired*
difference to the unmodified model, bootstrapped over documents: raw CE varies far more between
documents than dictionaries differ.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from transcoders.config import Corpus, Dictionary, Evaluation, Scale, Site
from transcoders.corpus import Rows, load_rows
from transcoders.dictionaries import SparseDictionary
from transcoders.files import read_json, read_table, read_tensors
from transcoders.layout import Layout
from transcoders.models import (
    LanguageModel,
    Predictions,
    continue_with_mlp_out,
    load_model,
    run_through_site,
)
from transcoders.progress import progress_bar
from transcoders.splicing import Spliced, replace_from, splice
from transcoders.statistics import mean

COLUMNS = [
    "dictionary", "site", "model", "layer", "kind", "headline", "seed", "l1_coefficient",
    "n_features", "tokens_trained", "tokens_different", "tokens_evaluated", "l0", "ce", "ce_low",
    "ce_high", "ce_original", "ce_mean_ablated", "ce_zero_ablated", "ce_recovered", "kl", "fvu",
    "dead_fraction", "l2_ratio",
]  # fmt: skip
BY_DOCUMENT_COLUMNS = ["dictionary", "document", "source", "tokens", "ce", "ce_original", "l0"]
Entries = list[tuple[Dictionary, SparseDictionary, dict[str, Any]]]
"""Dictionaries of one site: entry, weights, and the record of their training."""


class _Sums:
    """Running sums of one dictionary, some for each row and some over all rows."""

    def __init__(self) -> None:
        self.by_row: dict[str, list[Tensor]] = {"ce": [], "kl": [], "l0": []}
        self.total: dict[str, Tensor] = {}

    def add(self, spliced: Spliced, ce: Tensor, kl: Tensor) -> None:
        reconstruction, target = spliced.reconstruction, spliced.target
        active = spliced.z > 0
        self.by_row["ce"].append(ce)
        self.by_row["kl"].append(kl)
        self.by_row["l0"].append(active.sum(dim=(1, 2)).double().cpu())
        for name, value in {
            "squared_error": (target - reconstruction).double().square().sum(),
            "squared_target": target.double().square().sum(),
            "target": target.double().sum(dim=(0, 1)),
            "reconstruction_norm": reconstruction.norm(dim=2).double().sum(),
            "target_norm": target.norm(dim=2).double().sum(),
            "fired": active.sum(dim=(0, 1)),
        }.items():
            self.total[name] = self.total.get(name, 0) + value

    def of_row(self, name: str) -> Float[Tensor, " rows"]:
        return torch.cat(self.by_row[name])

    def measures(self, n_tokens: int, n_predictions: int) -> dict[str, float]:
        """What is measured of the dictionary alone."""
        total = self.total
        variation = total["squared_target"] - total["target"].square().sum() / n_tokens
        return {
            "l0": self.of_row("l0").sum().item() / n_tokens,
            "ce": self.of_row("ce").sum().item() / n_predictions,
            "kl": self.of_row("kl").sum().item() / n_predictions,
            "fvu": (total["squared_error"] / variation).item(),
            "dead_fraction": 1 - (total["fired"] > 0).double().mean().item(),
            "l2_ratio": (total["reconstruction_norm"] / total["target_norm"]).item(),
        }


def evaluate_site(
    model: LanguageModel,
    rows: Rows,
    documents: pd.DataFrame,
    dictionaries: Entries,
    mean_mlp_out: Float[Tensor, " d_model"],
    corpus: Corpus,
    evaluation: Evaluation,
    *,
    seed: int,
    device: str = "cpu",
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Measure all dictionaries of one site.

    Args:
        model: the whole model.
        rows: the held-out rows.
        documents: ``id`` and ``source`` of the documents that ``rows.document`` numbers.
        dictionaries: entry, weights, and training record, all of one site.
        mean_mlp_out: the mean over the training tokens, for mean ablation.
        corpus: says which positions are measured.
        evaluation: batch size.
        seed: of the bootstrap.
        device: where the model is.

    Returns:
        The rows of ``evaluation.csv`` and of ``evaluation_by_document.csv``. ``tokens_evaluated``
        counts the positions at which the dictionary acts. ``tokens``, in the second table, counts
        predictions. A row has one fewer of these, since its last position has no next token.
    """
    first = corpus.first_metric_position
    bounds = {"mean": mean_mlp_out.to(device), "zero": torch.zeros(())}
    batches = rows.tokens.split(evaluation.batch_contexts)
    ce_by_row, sums = _run(model, batches, dictionaries, bounds, first, device)
    n_tokens = rows.tokens[:, first:].numel()
    n_predictions = n_tokens - len(rows.tokens)
    original, ablated, zero = (ce.sum().item() / n_predictions for ce in ce_by_row.values())
    measured, by_document = [], []
    for (entry, weights, training), own in zip(dictionaries, sums, strict=True):
        of_own = _by_document(entry.name, own, ce_by_row["original"], rows, first, documents)
        differences = (of_own["ce"] - of_own["ce_original"]).to_numpy()
        tokens = of_own["tokens"].to_numpy(float)
        excess = mean(differences, "documents", weights=tokens, seed=seed)
        ends = {"ce_low": original + excess.low, "ce_high": original + excess.high}
        described = _described(entry, weights, training)
        measured.append(described | own.measures(n_tokens, n_predictions) | ends)
        by_document.append(of_own)
    table = pd.DataFrame(measured).assign(
        tokens_evaluated=n_tokens,
        ce_original=original,
        ce_mean_ablated=ablated,
        ce_zero_ablated=zero,
        ce_recovered=lambda table: (ablated - table["ce"]) / (ablated - original),
    )
    return table[COLUMNS], pd.concat(by_document, ignore_index=True)


def _described(
    entry: Dictionary, weights: SparseDictionary, training: dict[str, Any]
) -> dict[str, Any]:
    return {
        "dictionary": entry.name,
        "site": entry.site.name,
        **dict(entry.site),
        **entry.model_dump(include={"kind", "headline", "l1_coefficient"}),
        "n_features": weights.n_features,
        **{key: training[key] for key in ("seed", "tokens_trained", "tokens_different")},
    }


def _run(
    model: LanguageModel,
    batches: Sequence[Tensor],
    dictionaries: Entries,
    bounds: dict[str, Tensor],
    first: int,
    device: str,
) -> tuple[dict[str, Tensor], list[_Sums]]:
    """CE of every row, of the model and with its MLP ablated; and the sums of each dictionary."""
    site = dictionaries[0][0].site
    ce: dict[str, list[Tensor]] = {name: [] for name in ("original", *bounds)}
    sums = [_Sums() for _ in dictionaries]
    with progress_bar(sum(batch.numel() for batch in batches), f"evaluating {site.name}") as bar:
        for batch in batches:
            tokens = batch.to(device)
            passed = run_through_site(model, tokens, site.layer)
            predicted = Predictions(model, tokens, passed.normalized, first=first)
            ce["original"].append(predicted.ce)
            for name, value in bounds.items():
                ablated = replace_from(passed.activations.mlp_out, value, first)
                changed = continue_with_mlp_out(model, passed, site.layer, ablated)
                ce[name].append(predicted.of_changed(changed)[0])
            for (_, weights, _), own in zip(dictionaries, sums, strict=True):
                spliced = splice(weights, passed, model, site.layer, first_position=first)
                changed = continue_with_mlp_out(model, passed, site.layer, spliced.mlp_out)
                own.add(spliced, *predicted.of_changed(changed))
            bar.update(tokens.numel())
    return {name: torch.cat(parts) for name, parts in ce.items()}, sums


def _by_document(
    name: str, sums: _Sums, ce_original: Tensor, rows: Rows, first: int, documents: pd.DataFrame
) -> pd.DataFrame:
    """CE and L0 of one dictionary, averaged within each document."""
    n_predictions = rows.tokens.shape[1] - 1 - first
    by_row = pd.DataFrame(
        {
            "ce": sums.of_row("ce") / n_predictions,
            "ce_original": ce_original / n_predictions,
            "l0": sums.of_row("l0") / (n_predictions + 1),
        }
    )
    of_document = by_row.groupby(rows.document.numpy())
    table = of_document.mean().assign(dictionary=name, tokens=n_predictions * of_document.size())
    table[["document", "source"]] = documents.iloc[table.index][["id", "source"]].to_numpy()
    return table[BY_DOCUMENT_COLUMNS]


def evaluate_dictionaries(
    scale: Scale, layout: Layout, site: Site, entries: list[Dictionary], *, device: str = "cpu"
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Load the dictionaries of a site with all that they are measured on, and measure them.

    Returns:
        What :func:`evaluate_site` returns.

    Raises:
        UserError: a file is missing or damaged.
    """
    assert scale.evaluation is not None  # there are dictionaries
    dictionaries = []
    for entry in entries:
        folder = layout.dictionary(entry.name)
        weights = SparseDictionary.from_pretrained(folder).to(device)
        dictionaries.append((entry, weights, read_json(folder / "cfg.json")["training"]))
    rows = load_rows(layout.tokens(site.model), "eval")
    statistics = read_tensors(layout.activations(site.name) / "statistics.safetensors")
    return evaluate_site(
        load_model(layout.model(site.model), device=device),
        rows.spread(scale.rows_of_evaluation(site)),
        read_table(layout.documents, columns=["id", "source"]),
        dictionaries,
        statistics["mlp_out_mean"],
        scale.corpus,
        scale.evaluation,
        seed=scale.seed,
        device=device,
    )


def join_tables(paths: Iterable[Path]) -> pd.DataFrame:
    """Join CSV tables as text, so that no digit changes."""
    return pd.concat(read_table(path, dtype=str) for path in paths)
