"""How much the differences from the released code concern, on the circuits of a scale.

    python benchmarks/differences.py        about a minute, with the scale's weights

For docs/differences.md. Each number is a share of the paths kept or of the influence (which flows
from the target back through the graph). Writes benchmarks/differences.json.
"""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any
from unittest import mock

import typer

from transcoders.circuits import Node, Search, Tracer
from transcoders.circuits.graph import influence, left_out, prune_graph
from transcoders.circuits.paths import ComputationalPath
from transcoders.circuits.trace import Circuit
from transcoders.config import load_scale
from transcoders.files import write_json
from transcoders.layout import Layout

OUT = Path(__file__).with_name("differences.json")
SHOWN = 0.9


def share(paths: list[ComputationalPath], wanted: Any) -> float:
    """Of the paths besides the target's own."""
    return round(sum(map(wanted, paths[1:])) / (len(paths) - 1), 3)


def repeats(path: ComputationalPath) -> bool:
    """Whether the last step goes from a head of layer 0 to the embedding."""
    return path.node.kind == "embed" and path.nodes[-2].reads_embedding


def reads_bos(path: ComputationalPath) -> bool:
    """Whether a node of the path lies at token 0 or reads it."""
    return any((n.source if n.kind == "head" else n.token) == 0 for n in path.nodes[1:])


def beyond_heads(paths: list[ComputationalPath], n_heads: int) -> float:
    """Extensions by heads of one layer, beyond as many as it has heads, for each path."""
    counts = Counter(
        (id(path.parent), path.node.layer) for path in paths[1:] if path.node.kind == "head"
    )
    return round(sum(max(n - n_heads, 0) for n in counts.values()) / (len(paths) - 1), 3)


def measure(tracer: Tracer, circuit: Circuit) -> dict[str, Any]:
    """One circuit, and the same searched in other ways."""
    local, graph, paths = circuit.local, circuit.graph, circuit.paths

    def again(**changes: Any) -> list[ComputationalPath]:
        search = replace(circuit.search, **changes)
        return tracer.trace(circuit.prompt, circuit.target.name, search).paths

    with mock.patch.object(Node, "goes_on", property(lambda node: node.kind.reads)):
        extended = {sign: share(again(sign=sign), repeats) for sign in ("positive", "both")}
    shares, hidden = influence(graph), left_out(graph, prune_graph(graph, SHOWN))
    of_kind = Counter[str]()
    for node, part in shares.items():
        of_kind[node.kind] += part
    position = circuit.target.node.token
    return {
        "paths": len(paths) - 1,
        "negative": share(paths, lambda path: path.attribution < 0),
        "repeating_a_head_of_layer_0": extended,
        "beyond_n_heads_a_layer": beyond_heads(paths, local.replacement.n_heads),
        "influence_of_biases": round(of_kind["bias"], 3),
        "influence_of_errors": round(of_kind["error"], 3),
        "final_scale": round(local.passed.final_scale[position].item(), 3),
        "reading_bos": share(paths, reads_bos),
        "target": round(circuit.target.value, 3),
        "left_out": {name: round(value, 3) for name, value in hidden._asdict().items()},
    }


def main(
    scale: Annotated[str, typer.Option()] = "laptop", out: Annotated[Path, typer.Option()] = OUT
) -> None:
    settings = load_scale(Layout(scale).config)
    record: dict[str, Any] = {"scale": scale, "command": "python benchmarks/differences.py"}
    for case in settings.circuits.cases:
        tracer = Tracer.load(scale, case.model)
        search = Search(
            settings.circuits.n_paths, settings.circuits.iterations, case.components,
            sign=settings.circuits.sign, exclude_bos=case.exclude_bos,
        )  # fmt: skip
        record[case.name] = measure(tracer, tracer.trace(case.prompt, case.target, search))
        print(case.name, json.dumps(record[case.name]), flush=True)
    write_json(out, record)


if __name__ == "__main__":
    typer.run(main)
