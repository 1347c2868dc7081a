"""What a dictionary costs the model: every column of ``evaluation.csv``.

All dictionaries of a site are measured on the same held-out rows in one process. The model runs
once for each batch; for every dictionary and both bounds, only the layers after the site run again.

Cross entropy (CE, in nats) is that of the next token, and L0 the number of active features, both
averaged over the metric positions of all rows. The interval of CE is that of the *paired*
difference to the unmodified model, bootstrapped over documents: raw CE varies far more between
documents than dictionaries differ.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from scipy import stats
from torch import Tensor

from transcoders.activations import load_statistics
from transcoders.config import Corpus, Dictionary, Evaluation, Scale, Site
from transcoders.corpus import Rows, load_rows
from transcoders.dictionaries import SparseDictionary
from transcoders.files import read_json, read_table
from transcoders.layout import Layout
from transcoders.models import LanguageModel, continue_with_mlp_out, load_model, run_through_site
from transcoders.progress import progress_bar
from transcoders.splicing import Spliced, replace_from, splice

Entries = list[tuple[Dictionary, SparseDictionary, int]]
"""Dictionaries of one site: entry, weights, and tokens trained on."""


@dataclass
class _Sums:
    """Running sums of one dictionary. CE and KL of a row are summed over its positions."""

    ce: list[Tensor] = field(default_factory=list)
    kl: list[Tensor] = field(default_factory=list)
    l0: list[Tensor] = field(default_factory=list)
    squared_error: float = 0.0
    squared_target: float = 0.0
    target: Tensor | float = 0.0
    reconstruction_norm: float = 0.0
    target_norm: float = 0.0
    alive: Tensor | bool = False

    def add(self, spliced: Spliced) -> None:
        reconstruction, target = spliced.reconstruction, spliced.target
        active = spliced.z > 0
        self.l0.append(active.sum(dim=(1, 2)).double().cpu())
        self.squared_error += (target - reconstruction).double().square().sum().item()
        self.squared_target += target.double().square().sum().item()
        self.target = self.target + target.double().sum(dim=(0, 1))
        self.reconstruction_norm += reconstruction.norm(dim=2).double().sum().item()
        self.target_norm += target.norm(dim=2).double().sum().item()
        self.alive = active.any(dim=1).any(dim=0) | self.alive

    def fvu(self, n_tokens: int) -> float:
        """Fraction of variance unexplained: squared error over squared deviation from the mean."""
        squared_sum = torch.as_tensor(self.target).square().sum().item()
        return self.squared_error / (self.squared_target - squared_sum / n_tokens)


def evaluate_site(
    model: LanguageModel,
    rows: Rows,
    document_ids: list[str],
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
        document_ids: identifiers of the documents that ``rows.document`` numbers.
        dictionaries: entry, weights, and tokens trained on, all of one site.
        mean_mlp_out: the mean over the training tokens, for mean ablation.
        corpus: says which positions are measured.
        evaluation: batch size and bootstrap resamples.
        seed: of the bootstrap.
        device: where the model is.

    Returns:
        The rows of ``evaluation.csv`` and of ``evaluation_by_document.csv`` for this site.
        ``tokens_evaluated`` counts positions at which the dictionary acts. ``tokens`` by document
        counts predictions, one fewer for each row: the last position has no next token.
    """
    first = corpus.first_metric_position
    bounds = {"mean": mean_mlp_out.to(device), "zero": torch.zeros(())}
    ce, sums = _run(model, rows, dictionaries, bounds, first, evaluation.batch_contexts, device)
    n_tokens = rows.tokens[:, first:].numel()
    table, by_document = [], []
    for (entry, weights, tokens_trained), own in zip(dictionaries, sums, strict=True):
        documents = _by_document(entry.name, own, ce["original"], rows, first)
        by_document.append(documents)
        interval = paired_interval(documents, evaluation.bootstrap_resamples, seed=seed)
        table.append(
            {
                "dictionary": entry.name,
                "site": entry.site.name,
                "model": entry.site.model,
                "layer": entry.site.layer,
                "kind": entry.kind,
                "headline": entry.headline,
                "l1_coefficient": entry.l1_coefficient,
                "n_features": weights.n_features,
                "tokens_trained": tokens_trained,
                "tokens_evaluated": n_tokens,
                **_measures(own, ce, interval, n_tokens, int(documents["tokens"].sum())),
            }
        )
    per_document = pd.concat(by_document, ignore_index=True)
    per_document["document"] = [document_ids[index] for index in per_document["document"]]
    return pd.DataFrame(table), per_document


def _run(
    model: LanguageModel,
    rows: Rows,
    dictionaries: Entries,
    bounds: dict[str, Tensor],
    first: int,
    batch_contexts: int,
    device: str,
) -> tuple[dict[str, np.ndarray], list[_Sums]]:
    """CE of every row, of the model and with its MLP ablated; and the sums of each dictionary."""
    site = dictionaries[0][0].site
    ce: dict[str, list[Tensor]] = {name: [] for name in ("original", *bounds)}
    sums = [_Sums() for _ in dictionaries]
    with progress_bar(rows.tokens.numel(), f"evaluating {site.name}") as bar:
        for batch in rows.tokens.split(batch_contexts):
            tokens = batch.to(device)
            passed = run_through_site(model, tokens, site.layer)
            log_probs = _log_probs(passed.logits, first)
            ce["original"].append(_ce_by_row(log_probs, tokens, first))
            for name, value in bounds.items():
                ablated = replace_from(passed.activations.mlp_out, value, first)
                logits = continue_with_mlp_out(model, passed, site.layer, ablated)
                ce[name].append(_ce_by_row(_log_probs(logits, first), tokens, first))
            for (_, weights, _), own in zip(dictionaries, sums, strict=True):
                spliced = splice(weights, passed, model, site.layer, first_position=first)
                logits = continue_with_mlp_out(model, passed, site.layer, spliced.mlp_out)
                found = _log_probs(logits, first)
                own.add(spliced)
                own.ce.append(_ce_by_row(found, tokens, first))
                kl = (log_probs.exp() * (log_probs - found)).sum(dim=(1, 2))
                own.kl.append(kl.double().cpu())
            bar.update(tokens.numel())
    return {name: torch.cat(parts).numpy() for name, parts in ce.items()}, sums


def _measures(
    sums: _Sums,
    ce_by_row: dict[str, np.ndarray],
    interval: tuple[float, float],
    n_tokens: int,
    n_predictions: int,
) -> dict[str, float]:
    original, mean, zero = (by_row.sum() / n_predictions for by_row in ce_by_row.values())
    ce = torch.cat(sums.ce).sum().item() / n_predictions
    return {
        "l0": torch.cat(sums.l0).sum().item() / n_tokens,
        "ce": ce,
        "ce_low": original + interval[0],
        "ce_high": original + interval[1],
        "ce_original": original,
        "ce_mean_ablated": mean,
        "ce_zero_ablated": zero,
        "ce_recovered": (mean - ce) / (mean - original),
        "kl": torch.cat(sums.kl).sum().item() / n_predictions,
        "fvu": sums.fvu(n_tokens),
        "dead_fraction": 1 - torch.as_tensor(sums.alive).double().mean().item(),
        "l2_ratio": sums.reconstruction_norm / sums.target_norm,
    }


def _by_document(
    name: str, sums: _Sums, ce_original: np.ndarray, rows: Rows, first: int
) -> pd.DataFrame:
    """CE and L0 of one dictionary, averaged within each document."""
    n_predictions = rows.tokens.shape[1] - 1 - first
    table = pd.DataFrame(
        {
            "dictionary": name,
            "document": rows.document.numpy(),
            "tokens": n_predictions,
            "ce": torch.cat(sums.ce).numpy() / n_predictions,
            "ce_original": ce_original / n_predictions,
            "l0": torch.cat(sums.l0).numpy() / (n_predictions + 1),
        }
    )
    how = {
        "dictionary": "first",
        "tokens": "sum",
        "ce": "mean",
        "ce_original": "mean",
        "l0": "mean",
    }
    columns = list(table)
    return table.groupby("document", as_index=False).agg(how)[columns]


def paired_interval(documents: pd.DataFrame, resamples: int, *, seed: int) -> tuple[float, float]:
    """95% bootstrap interval over documents of the mean difference ``ce - ce_original``.

    Documents are resampled whole and weighted by their tokens.
    """
    tokens = documents["tokens"].to_numpy(dtype=float)
    excess = (documents["ce"] - documents["ce_original"]).to_numpy() * tokens

    def mean_difference(excess: np.ndarray, tokens: np.ndarray, axis: int = -1) -> np.ndarray:
        return excess.sum(axis=axis) / tokens.sum(axis=axis)

    result = stats.bootstrap(
        (excess, tokens),
        mean_difference,
        paired=True,
        vectorized=True,
        n_resamples=resamples,
        confidence_level=0.95,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def _log_probs(
    logits: Float[Tensor, "batch position vocabulary"], first: int
) -> Float[Tensor, "batch prediction vocabulary"]:
    """Log probabilities at the positions that predict: the last one has no next token."""
    return logits[:, first:-1].log_softmax(dim=-1)


def _ce_by_row(
    log_probs: Float[Tensor, "batch prediction vocabulary"],
    tokens: Int[Tensor, "batch position"],
    first: int,
) -> Float[Tensor, " batch"]:
    """Cross entropy of the next tokens, summed over each row."""
    next_tokens = tokens[:, first + 1 :].long()
    picked = log_probs.gather(2, next_tokens[:, :, None]).squeeze(2)
    return -picked.double().sum(dim=1).cpu()


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
        tokens_trained = read_json(folder / "cfg.json")["training"]["tokens_trained"]
        weights = SparseDictionary.from_pretrained(folder).to(device)
        dictionaries.append((entry, weights, tokens_trained))
    return evaluate_site(
        load_model(layout.model(site.model), device=device),
        load_rows(layout.tokens(site.model), "eval"),
        list(read_table(layout.documents, columns=["id"])["id"]),
        dictionaries,
        load_statistics(layout.activations(site.name)).mlp_out_mean,
        scale.corpus,
        scale.evaluation,
        seed=scale.seed,
        device=device,
    )


def compare_learning_rates(scale: Scale, layout: Layout, *, device: str = "cpu") -> pd.DataFrame:
    """Measure the dictionaries that compare learning rates, one row each."""
    entries = scale.learning_rate_dictionaries
    tables = [
        evaluate_dictionaries(
            scale, layout, site, [e for e in entries if e.site == site], device=device
        )[0]
        for site in dict.fromkeys(entry.site for entry in entries)
    ]
    rates = {entry.name: entry.learning_rate for entry in entries}
    table = pd.concat(tables, ignore_index=True)
    table.insert(1, "learning_rate", table["dictionary"].map(rates))
    return table


def join_tables(paths: Iterable[Path]) -> pd.DataFrame:
    """Join CSV tables as text, so that no digit changes."""
    return pd.concat(read_table(path, dtype=str) for path in paths)
