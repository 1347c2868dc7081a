"""How good the replacement model is: on text, and for the target of a circuit.

:func:`replacement_quality` measures what it costs the model to run on transcoders: cross entropy
with more and more MLPs replaced at once, each reading what the replaced ones before it wrote.

:func:`origins` says where a target comes from in the end. Features and heads only pass on what they
read. So the target is the sum of what embeddings, errors of transcoders, MLPs without a transcoder
and biases contribute over all paths. No circuit explains what errors contribute.
"""

from collections.abc import Callable, Sequence

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from transcoders.circuits.faithfulness import mean_activations
from transcoders.circuits.notation import NodeKind
from transcoders.circuits.replacement import ReplacementModel
from transcoders.circuits.trace import Tracer
from transcoders.circuits.vectors import Target
from transcoders.circuits.verify import NodeValues
from transcoders.config import Scale
from transcoders.corpus import Rows, load_rows
from transcoders.layout import Layout
from transcoders.models import Predictions, captured, mlp_interventions, run_blocks
from transcoders.splicing import replace_from
from transcoders.statistics import mean

BATCH = 4
"""Rows run together: their logits take most of the memory."""


def origins(target: Target, totals: NodeValues) -> pd.DataFrame:
    """What the target comes from in the end: contributions over all paths, summed over tokens.

    Args:
        target: what is explained.
        totals: its attributions over all paths.

    Returns:
        Columns ``origin`` (``embed``, ``mlp``, ``error``, ``bias``), ``layer`` (-1 for what belongs
        to none), ``attribution`` and ``share`` of the target. The attributions add up to the
        target; shares above 1 or below 0 mean that origins cancel each other. Layers from which
        nothing reaches the target are left out.
    """
    ends = (NodeKind.EMBED, NodeKind.MLP, NodeKind.ERROR)
    rows = [
        (kind.value, layer, totals[kind, layer].double().sum().item())
        for kind, layer in totals
        if kind in ends and totals[kind, layer].any()
    ]
    rows.append((NodeKind.BIAS.value, -1, target.value - sum(value for *_, value in rows)))
    table = pd.DataFrame(rows, columns=["origin", "layer", "attribution"])
    table["share"] = table["attribution"] / (target.value or float("nan"))
    return table


def replaced_layers(layers: Sequence[int]) -> list[list[int]]:
    """Sets of layers to replace: the last one, two, four and so on, and all.

    From the last down, since the model then runs only once up to the first that is replaced. Each
    set holds the one before, so any rise in cost comes from the added transcoders. Doubling keeps
    the number of sets small where there are 30.
    """
    doubling = [2**power for power in range(len(layers).bit_length()) if 2**power < len(layers)]
    return [sorted(layers)[-n:] for n in (*doubling, len(layers)) if layers]


@torch.inference_mode()
def replacement_quality(
    replacement: ReplacementModel,
    rows: Int[Tensor, "document token"],
    mean_mlp_out: dict[int, Float[Tensor, " d_model"]],
    *,
    first_metric_position: int,
    seed: int,
) -> pd.DataFrame:
    """Cross entropy with MLPs replaced by their transcoders, and by their means.

    Args:
        replacement: the model with its transcoders.
        rows: of held-out text, each of a different document.
        mean_mlp_out: by layer.
        first_metric_position: the first position that counts.
        seed: of the resampling of documents.

    Returns:
        A row for no replaced MLP, then one for each set of :func:`replaced_layers`: ``n_replaced``,
        ``layers``, ``ce``, ``ce_low``, ``ce_high``, the same for ``ce_mean_ablated``,
        ``ce_original``, ``documents``, ``tokens``. Intervals are those of the paired difference to
        the original, as in ``evaluation.csv``.
    """
    first, model = replacement.first_position, replacement.model

    def average(layer: int) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda _, mlp_out: replace_from(mlp_out, mean_mlp_out[layer], first)

    replacing = {"ce": replacement.imitation, "ce_mean_ablated": average}
    sets = [[], *replaced_layers(list(replacement.transcoders))]
    sums: dict[tuple[str, int], list[Tensor]] = {(w, len(s)): [] for s in sets for w in replacing}
    for batch in rows.split(BATCH):
        entrances = [f"blocks.{layers[0]}.hook_resid_pre" for layers in sets[1:]]
        with captured(model, entrances, batch.shape) as entered:
            normalized = run_blocks(model, tokens=batch)
        predicted = Predictions(model, batch, normalized, first=first_metric_position)
        for what, replace in replacing.items():
            sums[what, 0].append(predicted.ce)
            for layers, entrance in zip(sets[1:], entrances, strict=True):
                changes = {layer: replace(layer) for layer in layers}
                with mlp_interventions(model, changes, batch.shape):
                    changed = run_blocks(model, residual=entered[entrance], start=layers[0])
                sums[what, len(layers)].append(predicted.of_changed(changed)[0])
    n_predictions = rows.shape[1] - 1 - first_metric_position
    ce = {key: torch.cat(parts).numpy() / n_predictions for key, parts in sums.items()}
    original = ce["ce", 0]
    table = []
    for layers in sets:
        row = {"n_replaced": len(layers), "layers": " ".join(map(str, layers))}
        for what in replacing:
            excess = mean(ce[what, len(layers)] - original, "documents", seed=seed)
            for name, value in (("", excess.value), ("_low", excess.low), ("_high", excess.high)):
                row[what + name] = original.mean() + value
        row["ce_original"] = original.mean()
        table.append(row | {"documents": len(rows), "tokens": len(rows) * n_predictions})
    return pd.DataFrame(table)


def one_row_a_document(rows: Rows) -> Int[Tensor, "document token"]:
    """The first row of each document. More rows of a document say less than rows of another one."""
    return rows.tokens[~pd.Series(rows.document.numpy()).duplicated().to_numpy()]


def replacement_quality_of(scale: Scale, layout: Layout, *, device: str = "cpu") -> pd.DataFrame:
    """Measure the replacement model of every model that a circuit of the scale asks about.

    Raises:
        UserError: a file is missing or damaged.
    """
    tables = []
    for name in dict.fromkeys(case.model for case in scale.circuits.cases):
        replacement = Tracer.load(scale.name, name, device=device).replacement
        text, held_out = (load_rows(layout.tokens(name), split) for split in ("train", "eval"))
        means = mean_activations(
            replacement, text.tokens[: scale.circuits.text_contexts].to(device)
        )
        table = replacement_quality(
            replacement,
            one_row_a_document(held_out.spread(scale.rows_for_circuits)).to(device),
            {layer: means[NodeKind.MLP, layer] for layer in replacement.transcoders},
            first_metric_position=scale.corpus.first_metric_position,
            seed=scale.seed,
        )
        table.insert(0, "model", name)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)
