"""The paper's compact names of the parts of a circuit, as data and as text.

    tc10[5315]@8         feature 5315 of the transcoder of layer 10, at token 8
    tc10[top]@8          only as a target: the most active feature there
    attn9[1]@6           head 1 of layer 9, reading token 6
    mlp3@8               the whole MLP of layer 3, if no transcoder replaces it at token 8
    embed@8              the token's embedding
    logit[ 40]@-1        the logit of the token " 40" after the last token of the prompt
    logit[ 40]-logit[ 20]@-1

Tokens are counted from 0, the BOS token, or backwards from -1, the last.
"""

import re
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import NamedTuple

from transcoders.context import one_line
from transcoders.errors import UserError


class NodeKind(StrEnum):
    """What a node of a circuit is."""

    FEATURE = "feature"
    HEAD = "head"
    MLP = "mlp"
    """A whole MLP that has no transcoder."""
    ERROR = "error"
    """What a transcoder misses of its MLP's output."""
    EMBED = "embed"
    BIAS = "bias"
    PRUNED = "pruned"
    """What a search or pruning left out."""
    TARGET = "target"
    """A sum of logits."""

    @property
    def code(self) -> int:
        """Its number, for tensors."""
        return list(NodeKind).index(self)

    @property
    def reads(self) -> bool:
        """Whether it reads the residual stream itself, so that paths can go on through it."""
        return self in (NodeKind.FEATURE, NodeKind.HEAD)


CONTRIBUTORS = (
    NodeKind.FEATURE, NodeKind.HEAD, NodeKind.MLP, NodeKind.ERROR, NodeKind.EMBED,
)  # fmt: skip
"""What contributes to a feature vector, apart from biases."""
REMAINDERS = (NodeKind.BIAS, NodeKind.ERROR, NodeKind.PRUNED)
"""Nodes that complete a graph. They stand for what a node reads outside the paths found."""


class Node(NamedTuple):
    """A part of the model at one token: what writes something there."""

    kind: NodeKind
    layer: int
    """-1 for what belongs to no layer."""
    unit: int
    """Number of the feature or the head; -1 for what has neither."""
    token: int
    """The token that it writes at."""
    source: int = -1
    """The token that a head reads."""

    @property
    def key(self) -> str:
        """A text that no other node has. Heads that write at different tokens share a name."""
        return "/".join(str(part) for part in self)

    @property
    def name(self) -> str:
        """What it is called without its token: ``tc10[5315]``."""
        return str(self).partition("@")[0]

    @property
    def reads_embedding(self) -> bool:
        """Whether it reads the embedding and nothing else: a head of layer 0."""
        return self.kind == NodeKind.HEAD and self.layer == 0

    @property
    def goes_on(self) -> bool:
        """Whether a path through it can be extended by what it reads."""
        return NodeKind(self.kind).reads and not self.reads_embedding

    @property
    def place(self) -> tuple[int, ...]:
        """Where its number stands in the tensor for all nodes of its kind and layer."""
        places = {"feature": (self.token, self.unit), "head": (self.unit, self.token, self.source)}
        return places.get(self.kind, (self.token,))

    @classmethod
    def at(cls, kind: NodeKind, layer: int, *place: int) -> "Node":
        """The node at a place. Without a source in its place, a head counts with all sources."""
        match kind:
            case "feature":
                token, unit = place
                return cls(kind, layer, unit, token)
            case "head":
                return cls(kind, layer, *place)
            case _:
                return cls(kind, layer, -1, *place)

    @property
    def row(self) -> int:
        """Its row in a picture, from below: remainders, embeddings, layers, logits."""
        if self.layer < 0:
            return 0 if self.kind == "embed" else -1
        return 2 * self.layer + (1 if self.kind == "head" else 2)

    @property
    def row_name(self) -> str:
        """What its row is called."""
        if self.layer < 0:
            return "embedding" if self.kind == "embed" else "remainders"
        names = {"head": f"heads {self.layer}", "target": "logits"}
        return names.get(self.kind, f"MLP {self.layer}")

    def quoted(self, tokens: Sequence[str]) -> str:
        """The text of its token. For a head, the token that it reads comes first."""
        source = f"“{tokens[self.source]}” → " if self.kind == "head" else ""
        return one_line(f"{source}“{tokens[self.token]}”")

    def __str__(self) -> str:
        match self.kind:
            case "feature":
                return f"tc{self.layer}[{self.unit}]@{self.token}"
            case "head":
                source = f"@{self.source}" if self.source >= 0 else ""  # or with all its sources
                return f"attn{self.layer}[{self.unit}]{source}"
            case "mlp" | "error":
                return f"{self.kind}{self.layer}@{self.token}"
            case _:
                return f"{self.kind}@{self.token}"


def position(token: int, n_tokens: int) -> int:
    """The position of a token that may be counted from the end.

    Raises:
        UserError: the prompt has no such token.
    """
    found = token + n_tokens if token < 0 else token
    if not 0 <= found < n_tokens:
        raise UserError(
            f"token {token}: expected one from {-n_tokens} to {n_tokens - 1}, since the prompt has "
            f"{n_tokens} tokens with BOS"
        )
    return found


class FeatureName(NamedTuple):
    """``tc10[5315]@8``."""

    layer: int
    unit: int | None
    """None stands for the most active one."""
    token: int


class LogitName(NamedTuple):
    """``logit[ 40]-logit[ 20]@-1``: a sum of logits with signs."""

    terms: tuple[tuple[float, str], ...]
    """Weight and text of each token."""
    token: int


FEATURE = re.compile(r"tc(\d+)\[(\d+|top)\]@(-?\d+)")
# A token may itself hold a bracket: it ends at one that a sign or the final @ follows.
LOGIT_TERM = re.compile(r"\s*([+-]?)\s*logit\[(.+?)\]\s*(?=[+-]\s*logit\[|@$)", re.DOTALL)


def layers_in_words(layers: Iterable[int | str]) -> str:
    """Layers by number, with three or more in a row by their ends: ``0, 4, 8 to 29``."""
    runs: list[list[int]] = []
    for layer in sorted(map(int, layers)):
        if not runs or layer != runs[-1][-1] + 1:
            runs.append([])
        runs[-1].append(layer)
    ends = (f"{run[0]} to {run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs)
    return ", ".join(ends)


def parse_head(text: str) -> tuple[int, int]:
    """Layer and head of a text such as ``attn9[1]``.

    Raises:
        UserError: the text names no head.
    """
    if found := re.fullmatch(r"attn(\d+)\[(\d+)\]", text.strip()):
        return int(found[1]), int(found[2])
    raise UserError(f"head {text!r}: expected a layer and head such as attn9[1]")


def parse_target(text: str) -> FeatureName | LogitName:
    """Read the name of a target.

    Raises:
        UserError: the text names neither a feature nor a sum of logits.
    """
    if found := FEATURE.fullmatch(text.strip()):
        layer, unit, token = found.groups()
        return FeatureName(int(layer), None if unit == "top" else int(unit), int(token))
    body, at, token = text.rpartition("@")
    if at and re.fullmatch(r"-?\d+", token.strip()):
        terms, rest = [], body + "@"
        while found := LOGIT_TERM.match(rest):
            sign, word = found.groups()
            terms.append((-1.0 if sign == "-" else 1.0, word))
            rest = rest[found.end() :]
        if terms and rest == "@":
            return LogitName(tuple(terms), int(token))
    raise UserError(
        f"target {text!r}: expected a feature such as tc10[5315]@8 or logits such as "
        "logit[ 40]@-1 or logit[ 40]-logit[ 20]@-1"
    )
