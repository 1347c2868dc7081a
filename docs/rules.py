"""Draw the workflow's rules: `make docs/rules.svg`.

Reads Snakemake's rule graph in DOT; rules that differ only in the group, model or study that they
are for become one.
"""

import re
import sys

import pygraphviz

FAMILIES = {
    r"train_(?!ing_curves).*": "train\n(one job a group)",
    r"find_circuits_.*": "find_circuits\n(one job a model)",
    r"cache_activations_.*": "cache_activations\n(one job a model)",
    r"case_study_.*": "case_study\n(one page a study)",
}


def family(rule: str) -> str:
    """What a rule is drawn as."""
    for pattern, name in FAMILIES.items():
        if re.fullmatch(pattern, rule):
            return name
    return rule


def main() -> None:
    """From DOT on standard input to SVG on standard output."""
    text = sys.stdin.read()
    given = pygraphviz.AGraph(string=text[text.index("digraph") :])
    labels = {node: family(node.attr["label"]) for node in given.nodes()}
    drawn = pygraphviz.AGraph(directed=True, rankdir="LR", ranksep=0.6, nodesep=0.12)
    drawn.node_attr.update(
        shape="box", style="rounded", fontname="DejaVu Sans", fontsize=11, color="#0072B2"
    )
    drawn.edge_attr.update(color="#888888", arrowsize=0.6)
    for start, end in given.edges():
        if labels[start] != labels[end]:
            drawn.add_edge(labels[start], labels[end])
    drawn = drawn.tred()
    sys.stdout.buffer.write(drawn.draw(format="svg", prog="dot"))


if __name__ == "__main__":
    main()
