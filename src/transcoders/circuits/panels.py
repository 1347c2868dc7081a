"""What circuit-tracer's viewer shows of a feature: ``features/<number>.json``, one file for each.

The fields are those of ``circuit_tracer.frontend.feature_models`` (version 0.5). Neuronpedia reads
the same files from any address.
"""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from transcoders.circuits.export import feature_number
from transcoders.circuits.invariant import direct_logits
from transcoders.circuits.labels import feature_name
from transcoders.circuits.trace import Activations, Tracer
from transcoders.files import made_folder

N_EXAMPLES = 6
BEFORE, AFTER = 12, 4
"""How many tokens an example has before and after its peak."""
N_TOKENS = 8
"""How many tokens each list holds."""
N_BINS = 20


def write_panels(
    tracer: Tracer,
    activations: Activations,
    rows: Int[Tensor, "row token"],
    shown: Collection[str],
    folder: Path,
    *,
    model: str,
) -> None:
    """Write a file for each of some features.

    Args:
        tracer: of the features.
        activations: of the features, on a text.
        rows: of the text.
        shown: names of the features that get a file, as ``tc20[1706]``.
        folder: of the files. An older one there is replaced.
        model: its name.
    """
    with made_folder(folder) as temporary:
        for layer, (features, z) in activations.items():
            writes = tracer.replacement.transcoders[layer].W_dec[features]
            raised, lowered = (
                direct_logits(tracer.replacement, writes, N_TOKENS, largest=largest).pairs()
                for largest in (True, False)
            )
            for number, unit in enumerate(features.tolist()):
                if feature_name(layer, unit) not in shown:
                    continue
                panel = {
                    "transcoder_id": f"{model} layer {layer}",
                    "index": unit,
                    "examples_quantiles": [
                        {
                            "quantile_name": "Top activations",
                            "examples": _examples(tracer, z[:, :, number], rows),
                        }
                    ],
                    "top_logits": [tracer.tokenizer.decode([token]) for token, _ in raised[number]],
                    "bottom_logits": [
                        tracer.tokenizer.decode([token]) for token, _ in lowered[number]
                    ],
                    **_distribution(z[:, :, number]),
                }
                text = json.dumps(panel) + "\n"
                (temporary / f"{feature_number(layer, unit)}.json").write_text(
                    text, encoding="utf-8"
                )


def _examples(
    tracer: Tracer, z: Float[Tensor, "row position"], rows: Int[Tensor, "row token"]
) -> list[dict[str, Any]]:
    """The places where a feature is most active, one in a row, with what is around them."""
    peaks = z.max(dim=1)
    best = peaks.values.topk(min(N_EXAMPLES, len(rows)))
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
    """Numbers that a picture needs no more digits of."""
    return [float(f"{value:.3g}") for value in values.tolist()]
