"""Greedy search for computational paths (the paper's Algorithm 1, appendix).

1. Start with one path: the target.
2. Extend every path of the last round by everything that contributes to what its end reads: active
   features and the embedding at that token, MLPs without a transcoder, every head at every source
   token. The attribution of an extension is this contribution, in units of the target.
3. Keep the N extensions with the largest attributions, by size. (The paper keeps the N best of each
   path and then the N best of these. The result is the same.)
4. Repeat from 2 for a given number of rounds. The result is the paths of all rounds.

A path that ends in a head of layer 0 is complete: such a head reads the embedding alone, so one
more step would only repeat its value.

One round is a few matrix products over all paths, features, heads and source tokens at once.
"""

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from transcoders.circuits.notation import CONTRIBUTORS, Node, NodeKind, position
from transcoders.circuits.replacement import LocalReplacementModel, ReplacementModel
from transcoders.circuits.vectors import (
    Columns,
    Contributions,
    FeatureVectors,
    Target,
    contributions,
    pull_back,
)
from transcoders.errors import UserError

Sign = Literal["positive", "negative", "both"]


@dataclass(frozen=True)
class Search:
    """How paths are searched for, and what they may run through."""

    n_paths: int = 25
    """N: paths kept in each round."""
    iterations: int = 5
    """Rounds, which is also the largest number of nodes of a path besides its target."""
    components: Collection[str] = ("feature", "head", "mlp", "embed")
    """Some of ``feature``, ``head``, ``mlp`` (without a transcoder), ``embed``, ``error``."""
    layers: Collection[int] | None = None
    heads: Collection[tuple[int, int]] | None = None
    """Layer and head; None for all."""
    tokens: Collection[int] | None = None
    """Where features, MLPs and embeddings may lie, and what heads may read. Tokens are counted from
    0, or backwards from -1."""
    exclude_bos: bool = False
    """Leave out token 0."""
    sign: Sign = "both"
    """The sign of attributions that count. ``both`` ranks them by size: what holds a target back
    explains its value as much as what drives it."""

    def __post_init__(self) -> None:
        """Check what the user asked for.

        Raises:
            UserError: a component does not exist, or a number is not positive.
        """
        if unknown := sorted(set(self.components) - set(CONTRIBUTORS)):
            raise UserError(
                f"components: {', '.join(unknown)} not known; expected some of "
                f"{', '.join(CONTRIBUTORS)}"
            )
        if self.sign not in get_args(Sign):
            raise UserError(f"sign: expected one of {', '.join(get_args(Sign))}, found {self.sign}")
        if self.n_paths < 1 or self.iterations < 1:
            raise UserError(
                f"paths and iterations: expected at least 1 of each, found {self.n_paths} and "
                f"{self.iterations}"
            )

    def within(self, replacement: ReplacementModel, n_tokens: int) -> "Search":
        """The same on a model and a prompt: with tokens counted from 0.

        Raises:
            UserError: a filter names a token, layer or head that does not exist.
        """
        for layer in self.layers or ():
            if not 0 <= layer < (n_layers := replacement.n_layers):
                raise UserError(f"layer {layer}: expected one from 0 to {n_layers - 1}")
        for head in self.heads or ():
            replacement.check_head(*head)
        if self.tokens is None:
            return self
        return replace(self, tokens={position(token, n_tokens) for token in self.tokens})


@dataclass
class ComputationalPath:
    """A chain of nodes from the target back; its first node is the target."""

    nodes: tuple[Node, ...]
    attribution: float
    """What the last node contributes to the target along this path."""
    activation: float = 0.0
    """The activation of the last node, if it is a feature or the target."""
    parent: "ComputationalPath | None" = field(default=None, repr=False)
    """The path without the last node."""
    bias: float = 0.0
    """The contribution of biases to what the last node reads, in units of the target."""
    error: float = 0.0
    """The same for the errors of transcoders."""
    expanded: bool = False
    """Whether the search looked at what the last node reads."""
    children: list["ComputationalPath"] = field(default_factory=list, repr=False)
    """The paths that extend this one by a node."""

    @property
    def node(self) -> Node:
        """The last node."""
        return self.nodes[-1]

    def __str__(self) -> str:
        return " <- ".join(str(node) for node in self.nodes)


def find_paths(
    local: LocalReplacementModel, target: Target, search: Search
) -> list[ComputationalPath]:
    """The paths that Algorithm 1 finds: first the target alone, then round by round, best first.

    Args:
        local: of the prompt.
        target: what is explained.
        search: number of paths and rounds, filters.

    Raises:
        UserError: the filters name a token, layer or head that does not exist.
    """
    search = search.within(local.replacement, local.n_tokens)
    paths = [ComputationalPath((target.node,), target.value, activation=target.value)]
    found, vectors = list(paths), target.vectors
    for _ in range(search.iterations):
        if not paths:
            break
        round_ = contributions(local, vectors)
        _note_remainders(paths, round_)
        scores = round_.values * _allowed(round_.columns, vectors, search)
        row, column = _best(scores, search)
        extensions = _extend(paths, vectors, round_, row.tolist(), column.tolist())
        found += extensions
        reads = torch.tensor([path.node.goes_on for path in extensions], dtype=torch.bool)
        vectors = pull_back(local, vectors, round_, row[reads], column[reads])
        paths = [path for path in extensions if path.node.goes_on]
    return found


def strongest(paths: list[ComputationalPath], n: int) -> list[ComputationalPath]:
    """The n paths with the largest attributions by size, without the target's own path."""
    return sorted(paths[1:], key=lambda path: -abs(path.attribution))[:n]


def _allowed(
    columns: Columns, vectors: FeatureVectors, search: Search
) -> Bool[Tensor, "vector column"]:
    """The parts that the filters let through, for each vector."""
    device = columns.kind.device

    def among(values: Tensor, wanted: Collection[int]) -> Tensor:
        return torch.isin(values, torch.tensor(sorted(wanted), dtype=torch.long, device=device))

    kinds = [NodeKind(name).code for name in search.components]
    allowed = among(columns.kind, kinds)
    if search.layers is not None:
        allowed &= among(columns.layer, search.layers) | (columns.layer < 0)
    if search.heads is not None:
        numbers = columns.layer * 2**20 + columns.unit
        wanted = [layer * 2**20 + head for layer, head in search.heads]
        allowed &= (columns.kind != NodeKind.HEAD.code) | among(numbers, wanted)
    # (vector, column): a part without a source token lies at the vector's token.
    token = torch.where(columns.source < 0, vectors.token[:, None], columns.source)
    by_vector = allowed.expand(len(vectors.token), -1).clone()
    if search.tokens is not None:
        by_vector &= among(token, search.tokens)
    if search.exclude_bos:
        by_vector &= token != 0
    return by_vector


def _best(scores: Float[Tensor, "vector column"], search: Search) -> tuple[Tensor, Tensor]:
    """Rows and columns of the N largest scores of the wanted sign, the largest first."""
    size = {"positive": scores, "negative": -scores, "both": scores.abs()}[search.sign].flatten()
    best = size.topk(min(search.n_paths, len(size)))
    chosen = best.indices[best.values > 0]
    return chosen // scores.shape[1], chosen % scores.shape[1]


def _extend(
    paths: list[ComputationalPath],
    vectors: FeatureVectors,
    found: Contributions,
    rows: list[int],
    columns: list[int],
) -> list[ComputationalPath]:
    parts = [part[columns].tolist() for part in found.columns]
    attributions = found.values[rows, columns].tolist()
    tokens = vectors.token.tolist()
    extensions = []
    for row, kind, layer, unit, source, activation, attribution in zip(
        rows, *parts, attributions, strict=True
    ):
        name = list(NodeKind)[kind]
        node = Node(name, layer, unit, tokens[row], source if name is NodeKind.HEAD else -1)
        path = ComputationalPath((*paths[row].nodes, node), attribution, activation, paths[row])
        paths[row].children.append(path)
        extensions.append(path)
    return extensions


def _note_remainders(paths: list[ComputationalPath], found: Contributions) -> None:
    """Record what biases and errors contribute to each path that was looked at."""
    error = found.values[:, found.columns.kind == NodeKind.ERROR.code].sum(dim=1).tolist()
    for path, bias, errors in zip(paths, found.bias.tolist(), error, strict=True):
        path.bias, path.error, path.expanded = bias, errors, True
