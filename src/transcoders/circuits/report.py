"""The files of one circuit: its record and checks in the model, then its page and viewers' graph.

The second two need no model: labels of features are made in between, for all circuits at once.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxtyping import Int
from torch import Tensor

from transcoders.circuits.ablation import (
    REPLACEABLE,
    ablation_effects,
    faithfulness,
    mean_activations,
    parts_by_attribution,
    rank_correlation,
    replaceable_parts,
)
from transcoders.circuits.export import FEATURES, load_circuit, paths_record, write_graph
from transcoders.circuits.graph import build_graph, influence
from transcoders.circuits.labels import Labels
from transcoders.circuits.page import circuit_page, feature_links
from transcoders.circuits.panels import write_panels
from transcoders.circuits.trace import Circuit, Tracer
from transcoders.circuits.verify import completeness, total_attributions
from transcoders.files import made_path, write_json, write_table

SIZES = [0, *(2**power for power in range(14))]
"""Numbers of parts at which faithfulness is measured. The parts of the graph come first."""


def write_circuit(
    tracer: Tracer,
    circuit: Circuit,
    rows: Int[Tensor, "row token"],
    folder: Path,
    *,
    name: str,
    model: str,
) -> None:
    """Check a circuit against the model, and write its record and the checks.

    Args:
        tracer: that found the circuit.
        circuit: what was found.
        rows: of text, for means that replace ablated parts and for examples of features.
        folder: of the files.
        name: short, for files and addresses.
        model: its name.
    """
    local, target, graph = circuit.local, circuit.target, circuit.graph
    shares = influence(graph)
    nodes = sorted(shares, key=lambda node: (-shares[node], node))
    parts = [node for node in nodes if node.kind in REPLACEABLE and node != target.node]
    totals = total_attributions(local, target)
    effects = ablation_effects(local, target, totals, parts)
    means = mean_activations(local.replacement, rows)
    ranked = [*parts, *parts_by_attribution(totals)]
    curve = faithfulness(local, target, ranked, means, SIZES)
    correlation = rank_correlation(effects)
    activations = tracer.activations_on(rows, [target.node, *parts])
    notes = tracer.notes(activations, rows)
    record = {
        "name": name,
        "model": model,
        **_question(tracer, circuit),
        "transcoders": list(local.replacement.transcoders),
        "search": vars(circuit.search),
        "completeness_error": float(completeness(local, target.vectors).error.max()),
        "rank_correlation": None if math.isnan(correlation) else correlation,
        "parts": len(replaceable_parts(parts)),
        "notes": notes,
        "paths": paths_record(circuit.paths),
    }
    write_panels(tracer, activations, rows, folder / FEATURES, model=model)
    write_table(folder / "ablation.csv", effects)
    write_table(folder / "faithfulness.csv", curve)
    write_json(folder / "paths.json", record)


def write_circuit_page(folder: Path, labels: Labels, pages: Mapping[int, Path]) -> None:
    """Write the page and the viewers' graph of a circuit, beside its record.

    Args:
        folder: where :func:`write_circuit` wrote the record.
        labels: names of features; those without one keep their number.
        pages: by layer, where the pages of features that have a label are.

    Raises:
        UserError: the record is missing, or was changed since it was made.
    """
    record, paths = load_circuit(folder)
    graph = build_graph(paths)
    page = circuit_page(
        graph,
        title=f"{record['name']}: why {record['target']['name']}?",
        tokens=record["tokens"],
        summary=_summary(record),
        notes=record["notes"],
        target_name=record["target"]["name"],
        paths=paths,
        labels=labels,
        links=feature_links(labels, pages, folder),
    )
    write_graph(folder, graph, record, labels)
    with made_path(folder / "circuit.html") as temporary:
        temporary.write_text(page, encoding="utf-8")


def _question(tracer: Tracer, circuit: Circuit) -> dict[str, Any]:
    """The prompt and the target, as the record holds them; a feature has no logits."""
    local, target = circuit.local, circuit.target
    logits = local.passed.logits[target.node.token]
    probabilities = logits.softmax(dim=-1)
    return {
        "prompt": circuit.prompt,
        "tokens": circuit.tokens,
        "token_ids": local.passed.tokens.tolist(),
        "n_layers": local.replacement.n_layers,
        "d_vocab": len(logits),
        "target": {
            "name": target.name,
            "value": target.value,
            "logits": [
                {
                    "token": tracer.tokenizer.decode([token]),
                    "token_id": token,
                    "weight": weight,
                    "probability": probabilities[token].item(),
                }
                for token, weight in target.logits.items()
            ],
        },
    }


def _summary(record: dict[str, Any]) -> str:
    layers, correlation = ", ".join(map(str, record["transcoders"])), record["rank_correlation"]
    found = "undefined" if correlation is None else f"{correlation:.2f}"
    return (
        f"The target is {record['target']['value']:.3f}. Transcoders replace the MLPs of layers "
        f"{layers}; every other MLP is a single node at each token. Spearman's rank correlation "
        f"between attribution and the effect of ablating each node in the real model is {found}."
    )
