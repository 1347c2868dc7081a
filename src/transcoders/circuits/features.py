"""What is known of the features of circuits: from a text, and from weights alone.

The page of a circuit shows lists of each feature. circuit-tracer's viewer reads a file of each,
whose fields are those of ``circuit_tracer.frontend.feature_models`` (version 0.5). Neuronpedia
reads the same files from any address.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from transcoders.circuits.invariant import Best, de_embeddings, direct_logits
from transcoders.circuits.labels import feature_name
from transcoders.circuits.notation import Node
from transcoders.circuits.replacement import ReplacementModel
from transcoders.circuits.trace import Tracer
from transcoders.context import in_context, one_line
from transcoders.models import mlp_activations

N_LISTED = 6
"""Rows of each list on a page, and examples in a file."""
N_TOKENS = 8
"""Tokens in each list of a file."""
BEFORE, AFTER = 12, 4
"""How many tokens an example in a file has before and after its peak."""
N_BINS = 20
BATCH = 8
"""Rows of the text run together."""

Rows = list[tuple[str, str]]
"""Of a list: a text and a value."""
Lists = list[tuple[str, Rows]]
"""Lists to show with a feature: titles and rows."""


class KnownFeature(NamedTuple):
    """What is known of a feature."""

    layer: int
    unit: int
    lists: Lists
    """For the page."""
    panel: dict[str, Any]
    """For the viewer, without the name of the model."""


def look_at_features(
    tracer: Tracer, nodes: Iterable[Node], rows: Int[Tensor, "row token"]
) -> dict[str, KnownFeature]:
    """What is known of the features among some nodes, by names such as ``tc20[1706]``.

    Args:
        tracer: of the features.
        nodes: those that are not features do not count.
        rows: of a text.
    """
    replacement = tracer.replacement
    units: dict[int, list[int]] = defaultdict(list)
    for layer, unit in sorted({(n.layer, n.unit) for n in nodes if n.kind == "feature"}):
        units[layer].append(unit)
    known = {}
    for layer, z in _activations(replacement, units, rows).items():
        reads = replacement.encoder_vectors(layer, torch.tensor(units[layer], device=rows.device))
        writes = replacement.transcoders[layer].W_dec[units[layer]]
        drivers = _words(tracer, de_embeddings(replacement, reads, N_LISTED))
        raised = _words(tracer, direct_logits(replacement, writes, N_TOKENS))
        lowered = _words(tracer, direct_logits(replacement, writes, N_TOKENS, largest=False))
        for number, unit in enumerate(units[layer]):
            own = z[:, :, number]
            lists = [
                ("Text where it is most active", _strongest(tracer, own, rows)),
                ("De-embedding: embeddings that drive it", drivers[number]),
                ("Logits it raises (DLA)", raised[number][:N_LISTED]),
            ]
            examples = {
                "quantile_name": "Top activations", "examples": _examples(tracer, own, rows),
            }  # fmt: skip
            panel = {
                "index": unit,
                "examples_quantiles": [examples],
                "top_logits": [token for token, _ in raised[number]],
                "bottom_logits": [token for token, _ in lowered[number]],
                **_distribution(own),
            }
            known[feature_name(layer, unit)] = KnownFeature(layer, unit, lists, panel)
    return known


def _activations(
    replacement: ReplacementModel, units: dict[int, list[int]], rows: Int[Tensor, "row token"]
) -> dict[int, Float[Tensor, "row position feature"]]:
    """How active some features of each layer are on a text, from the first position on."""
    parts: dict[int, list[Tensor]] = {layer: [] for layer in units}
    for batch in rows.split(BATCH) if units else []:
        found = mlp_activations(replacement.model, batch, list(units))
        for layer, its in units.items():
            mlp_in = found[layer].mlp_in[:, replacement.first_position :]
            parts[layer].append(replacement.transcoders[layer].encode(mlp_in)[:, :, its])
    return {layer: torch.cat(batches) for layer, batches in parts.items()}


def _words(tracer: Tracer, best: Best) -> list[Rows]:
    """For each row its tokens, as texts, with their values."""
    return [[(tracer.tokenizer.decode([i]), f"{x:.2f}") for i, x in row] for row in best.pairs()]


def _strongest(
    tracer: Tracer, z: Float[Tensor, "row position"], rows: Int[Tensor, "row token"]
) -> Rows:
    """The tokens where a feature is most active, each after a few before it."""
    best = z.flatten().topk(min(N_LISTED, z.numel()))
    lines = []
    for value, place in zip(best.values.tolist(), best.indices.tolist(), strict=True):
        row, position = divmod(place, z.shape[1])
        tokens = rows[row, tracer.replacement.first_position :].tolist()
        if value > 0:
            context = in_context(tracer.tokenizer, tokens, position, before=5)
            lines.append((one_line("".join(context)), f"{value:.2f}"))
    return lines


def _examples(
    tracer: Tracer, z: Float[Tensor, "row position"], rows: Int[Tensor, "row token"]
) -> list[dict[str, Any]]:
    """The places where a feature is most active, one in each row, with what is around them."""
    peaks = z.max(dim=1)
    best = peaks.values.topk(min(N_LISTED, len(rows)))
    examples = []
    for row in best.indices[best.values > 0].tolist():
        peak = int(peaks.indices[row])
        start, end = max(peak - BEFORE, 0), peak + AFTER + 1
        tokens = rows[row, tracer.replacement.first_position :][start:end].tolist()
        examples.append(
            {
                "tokens_acts_list": _rounded(z[row, start:end]),
                "train_token_ind": peak - start,
                "is_repeated_datapoint": False,
                "tokens": [tracer.tokenizer.decode([token]) for token in tokens],
            }
        )
    return examples


def _distribution(z: Float[Tensor, "row position"]) -> dict[str, Any]:
    """How a feature's activations are distributed where it is active."""
    active = z[z > 0].float().cpu()
    largest = active.max().item() if len(active) else 0.0
    percentiles = torch.arange(1, 101) / 100
    return {
        "act_min": 0.0,
        "act_max": largest,
        "quantile_values": _rounded(active.quantile(percentiles)) if len(active) else [],
        "histogram": active.histc(N_BINS, 0, largest).tolist() if len(active) else [],
        "activation_frequency": len(active) / z.numel(),
    }


def _rounded(values: Float[Tensor, " value"]) -> list[float]:
    """Numbers with as many digits as a picture needs."""
    return [float(f"{value:.3g}") for value in values.tolist()]
