"""The files of one circuit: its record, the viewers' graph, the page, and checks in the model."""

import math
from pathlib import Path

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
from transcoders.circuits.attention import attention_table
from transcoders.circuits.export import attribution_graph, paths_record
from transcoders.circuits.graph import influence, prune_graph
from transcoders.circuits.page import circuit_page
from transcoders.circuits.trace import Circuit, Tracer
from transcoders.circuits.verify import completeness, total_attributions
from transcoders.files import made_folder, write_json, write_table

SIZES = [0, *(2**power for power in range(14))]
"""Numbers of parts at which faithfulness is measured. The parts of the graph come first."""
SHOWN = 0.9
"""Share of the influence that the nodes on the page hold."""


def write_circuit(
    tracer: Tracer,
    circuit: Circuit,
    rows: Int[Tensor, "row token"],
    folder: Path,
    *,
    name: str,
    model: str,
) -> None:
    """Check a circuit against the model and write everything about it, all or nothing.

    Args:
        tracer: that found the circuit.
        circuit: what was found.
        rows: of text, for means that replace ablated parts and for examples of features.
        folder: of the files. An older circuit there is replaced.
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
    notes = tracer.notes([target.node, *parts], rows)
    record = {
        "name": name,
        "model": model,
        "prompt": circuit.prompt,
        "tokens": circuit.tokens,
        "target": {"name": target.name, "value": target.value},
        "transcoders": list(local.replacement.transcoders),
        "search": vars(circuit.search),
        "completeness_error": float(completeness(local, target.vectors).error.max()),
        "rank_correlation": None if math.isnan(correlation) else correlation,
        "parts": len(replaceable_parts(parts)),
        "notes": notes,
        "paths": paths_record(circuit.paths),
    }
    page = circuit_page(
        prune_graph(graph, SHOWN),
        title=f"{name}: why {target.name}?",
        tokens=circuit.tokens,
        summary=_summary(circuit, correlation),
        notes=notes,
    )
    with made_folder(folder) as temporary:
        write_json(temporary / "paths.json", record)
        viewed = attribution_graph(circuit, name=name, model=model, notes=notes)
        write_json(temporary / "graph.json", viewed)
        write_table(temporary / "ablation.csv", effects)
        write_table(temporary / "attention.csv", attention_table(local, graph))
        write_table(temporary / "faithfulness.csv", curve)
        (temporary / "circuit.html").write_text(page, encoding="utf-8")


def _summary(circuit: Circuit, correlation: float) -> str:
    layers = ", ".join(map(str, circuit.local.replacement.transcoders))
    return (
        f"The target is {circuit.target.value:.3f}. Transcoders replace the MLPs of layers "
        f"{layers}; every other MLP is a single node at each token. The page shows the nodes with "
        f"{SHOWN:.0%} of the influence. Point at a node to see what it reads and what is known of "
        "it. Click it to follow its paths. Spearman's rank correlation between attribution and the "
        f"effect of ablating each node in the real model is {correlation:.2f}."
    )
