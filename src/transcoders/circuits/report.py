"""The files of one circuit: its record, the viewers' graph, the page, and the checks against it."""

import math
import re
from pathlib import Path
from typing import Any

from jaxtyping import Int
from torch import Tensor

from transcoders.circuits.ablation import ablation_effects, rank_correlation
from transcoders.circuits.export import attribution_graph, paths_record
from transcoders.circuits.faithfulness import (
    REPLACEABLE,
    faithfulness,
    mean_activations,
    parts_by_attribution,
    replaceable_parts,
)
from transcoders.circuits.graph import influence, prune_graph
from transcoders.circuits.page import circuit_page
from transcoders.circuits.trace import Circuit, Notes, Tracer
from transcoders.circuits.verify import completeness, total_attributions
from transcoders.files import made_folder, write_json, write_table

SIZES = [0, *(2**power for power in range(14))]
"""Numbers of parts at which faithfulness is measured: those of the graph, then the rest."""
SHOWN = 0.9
"""Share of the influence that the nodes of page and picture hold."""


def write_circuit(
    tracer: Tracer,
    circuit: Circuit,
    rows: Int[Tensor, "row token"],
    folder: Path,
    *,
    name: str,
    model: str,
    prompt: str,
    settings: dict[str, Any],
) -> None:
    """Check a circuit against the model and write everything about it, all or nothing.

    Args:
        tracer: that found it.
        circuit: what was found.
        rows: of text: for the means that replace what is ablated, and for features' examples.
        folder: where; an older circuit there is replaced.
        name: short, for files and addresses.
        model: its name.
        prompt: as text.
        settings: of the search, for the record.
    """
    local, target, graph = circuit.local, circuit.target, circuit.graph
    shares = influence(graph)
    nodes = sorted((n for n in graph if n != target.node), key=lambda n: (-shares[n], n))
    parts = [node for node in nodes if node.kind in REPLACEABLE]
    totals = total_attributions(local, target)
    effects = ablation_effects(local, target, totals, parts)
    beyond = parts_by_attribution(local, totals)
    means = mean_activations(local.circuit, rows)
    curve = faithfulness(local, target, [*parts, *beyond], means, SIZES)
    notes = tracer.notes([target.node, *parts], rows)
    sums = completeness(local, target.vectors)
    correlation = rank_correlation(effects)
    record = {
        "name": name,
        "model": model,
        "prompt": prompt,
        "tokens": circuit.tokens,
        "target": {"name": target.name, "value": target.value},
        "transcoders": list(local.circuit.transcoders),
        "search": settings,
        "completeness_error": float(sums.error.max()),
        "rank_correlation": None if math.isnan(correlation) else correlation,
        "parts": len(replaceable_parts(parts)),
        "notes": notes,
        "paths": paths_record(circuit.paths),
    }
    with made_folder(folder) as temporary:
        write_json(temporary / "paths.json", record)
        write_json(
            temporary / "graph.json",
            attribution_graph(
                graph,
                slug=re.sub(r"[^A-Za-z0-9.-]+", "-", name),
                model=model,
                prompt=prompt,
                tokens=circuit.tokens,
                token_ids=local.passed.tokens.tolist(),
                labels={node: _label(str(node), notes) for node in graph},
            ),
        )
        for table, file in ((effects, "ablation.csv"), (curve, "faithfulness.csv")):
            write_table(temporary / file, table)
        page = circuit_page(
            prune_graph(graph, SHOWN),
            title=f"{name}: why {target.name}?",
            tokens=circuit.tokens,
            summary=_summary(circuit, correlation),
            notes=notes,
        )
        (temporary / "circuit.html").write_text(page, encoding="utf-8")


def _summary(circuit: Circuit, correlation: float) -> str:
    local = circuit.local
    layers = ", ".join(str(layer) for layer in local.circuit.transcoders)
    return (
        f"The target is {circuit.target.value:.3f}. Transcoders stand at layers {layers}; other "
        f"MLPs are single nodes. Shown are the nodes with {SHOWN:.0%} of the influence. Point at "
        "one to see what it reads and what is known of it, click to follow it. Spearman's rank "
        "correlation of attribution with what ablating each node does to the real model is "
        f"{correlation:.2f}."
    )


def _label(name: str, notes: Notes) -> str:
    """The name, and for a feature the tokens whose embeddings drive it most."""
    for title, rows in notes.get(name.partition("@")[0], []):
        if title.startswith("De-embedding"):
            return f"{name}: {' '.join(token.strip() for token, _ in rows[:3])}"
    return name
