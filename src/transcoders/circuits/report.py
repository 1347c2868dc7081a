"""The files of one circuit: its record and checks in the model, then its page and viewers' graph.

The second two need no model: labels of features are made in between, for all circuits at once.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxtyping import Int
from torch import Tensor

from transcoders.circuits.ablation import REPLACEABLE
from transcoders.circuits.attention import attention_table
from transcoders.circuits.controls import control_effects
from transcoders.circuits.export import (
    FEATURES,
    feature_number,
    load_circuit,
    paths_record,
    write_graph,
)
from transcoders.circuits.faithfulness import (
    Means,
    faithfulness,
    mean_activations,
    parts_by_attribution,
    replaceable_parts,
)
from transcoders.circuits.features import KnownFeature, look_at_features
from transcoders.circuits.graph import build_graph, influence
from transcoders.circuits.labels import Labels
from transcoders.circuits.page import circuit_page
from transcoders.circuits.quality import origins
from transcoders.circuits.steering import ablation_effects, rank_correlation, steering
from transcoders.circuits.trace import Circuit, Tracer
from transcoders.circuits.verify import TotalAttributions, completeness
from transcoders.contents import relative
from transcoders.files import made_folder, made_path, write_json, write_table
from transcoders.models import logits_after

SIZES = [0, *(2**power for power in range(14))]
"""Numbers of parts at which faithfulness is measured. The parts of the graph come first."""


class OnText(NamedTuple):
    """What the parts of circuits do on a text. All circuits of a model share it."""

    features: dict[str, KnownFeature]
    means: Means
    """What replaces ablated parts."""


def look_up(tracer: Tracer, circuits: Sequence[Circuit], rows: Int[Tensor, "row token"]) -> OnText:
    """Run a text through the model, and look at all features of some circuits."""
    nodes = [node for circuit in circuits for node in circuit.graph]
    features = look_at_features(tracer, nodes, rows)
    return OnText(features, mean_activations(tracer.replacement, rows))


def write_circuit(
    tracer: Tracer,
    circuit: Circuit,
    text: OnText,
    folder: Path,
    *,
    name: str,
    model: str,
    seed: int,
) -> None:
    """Check a circuit against the model, and write its record and the checks.

    Args:
        tracer: that found the circuit.
        circuit: what was found.
        text: on which its features were looked up.
        folder: of the files.
        name: short, for files and addresses.
        model: its name.
        seed: of the random sets of parts that the circuit is compared with.
    """
    local, target, graph = circuit.local, circuit.target, circuit.graph
    parts = [n for n in influence(graph) if n.kind in REPLACEABLE and n != target.node]
    totals = TotalAttributions(local, target)
    steered, errors = steering(local, target, totals, parts), origins(target, totals)
    ranked = [*parts, *parts_by_attribution(totals, SIZES[-1])]
    del totals  # those of a long prompt are large
    effects = ablation_effects(steered)
    correlation = rank_correlation(effects)
    tables = {
        "ablation": effects,
        "faithfulness": faithfulness(local, target, ranked, text.means, SIZES),
        "controls": control_effects(local, target, parts, text.means, seed=seed),
        "steering": steered,
        "errors": errors,
        "attention": attention_table(local, graph),
    }
    own = {node.name for node in graph}
    known = {name: feature for name, feature in text.features.items() if name in own}
    record = {
        "name": name,
        "model": model,
        **_question(tracer, circuit),
        "transcoders": list(local.replacement.transcoders),
        "search": vars(circuit.search),
        "completeness_error": float(completeness(local, target.vectors).error.max()),
        "rank_correlation": None if math.isnan(correlation) else correlation,
        "parts": len(replaceable_parts(parts)),
        "notes": {name: feature.lists for name, feature in known.items()},
        "paths": paths_record(circuit.paths),
    }
    with made_folder(folder / FEATURES) as temporary:
        for layer, unit, _, panel in known.values():
            written = json.dumps({"transcoder_id": f"{model} layer {layer}", **panel}) + "\n"
            path = temporary / f"{feature_number(layer, unit)}.json"
            path.write_text(written, encoding="utf-8")
    for table, content in tables.items():
        write_table(folder / f"{table}.csv", content)
    write_json(folder / "paths.json", record)


def write_circuit_page(
    folder: Path, labels: Labels, pages: Mapping[int, Path], article: Path | None = None
) -> None:
    """Write the page and the viewers' graph of a circuit, beside its record.

    Args:
        folder: where :func:`write_circuit` wrote the record.
        labels: names of features; those without one keep their number.
        pages: by layer, the pages of the feature browser with the features that have a label.
        article: what the page leads back to, if it belongs to one.

    Raises:
        UserError: the record is missing, or was changed since it was made.
    """
    record, paths = load_circuit(folder)
    page = circuit_page(
        record,
        paths,
        labels,
        pages={layer: relative(page, folder) for layer, page in pages.items()},
        article=relative(article, folder) if article else "",
    )
    write_graph(folder, build_graph(paths), record, labels)
    with made_path(folder / "circuit.html") as temporary:
        temporary.write_text(page, encoding="utf-8")


def _question(tracer: Tracer, circuit: Circuit) -> dict[str, Any]:
    """The prompt and the target, as the record holds them; a feature has no logits."""
    local, target = circuit.local, circuit.target
    logits = logits_after(local.replacement.model, local.passed, target.node.token)
    probabilities, weights = logits.softmax(dim=-1), list(target.logits.values())
    return {
        "prompt": circuit.prompt,
        "tokens": circuit.tokens,
        "token_ids": local.passed.tokens.tolist(),
        "n_layers": local.replacement.n_layers,
        "d_vocab": len(logits),
        "target": {
            "name": target.name,
            "value": target.value,
            # Of a difference of two logits: whether the model gives the first one more.
            "prefers_first": target.value > 0 if weights == [1, -1] else None,
            "logits": [
                {
                    "token": tracer.tokenizer.decode([token]),
                    "token_id": token,
                    "weight": weight,
                    "probability": probabilities[token].item(),
                    # Among all tokens; 1 is the one that the model holds likeliest.
                    "rank": 1 + int((logits > logits[token]).sum()),
                }
                for token, weight in target.logits.items()
            ],
        },
    }
