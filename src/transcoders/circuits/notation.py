"""The paper's compact names of the parts of a circuit, as data and as text.

    tc10[5315]@8         feature 5315 of the transcoder of layer 10, at token 8
    tc10[top]@8          as a target: the feature that is most active there
    attn9[1]@6           head 1 of layer 9, reading token 6
    mlp3@8               the MLP of layer 3, whole: it has no transcoder there
    embed@8              the token's embedding
    logit[ 40]@-1        the logit of the token " 40" after the last token of the prompt
    logit[ 40]-logit[ 20]@-1

Tokens are counted from 0, the BOS token, or backwards from -1, the last.
"""

import re
from enum import StrEnum
from typing import NamedTuple

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
"""What contributes to a feature vector besides biases."""
REMAINDERS = (NodeKind.BIAS, NodeKind.ERROR, NodeKind.PRUNED)
"""Nodes that complete a graph: what a node reads besides the paths that were found."""


class Node(NamedTuple):
    """A part of the model at one token: what writes something there."""

    kind: NodeKind
    layer: int
    """-1 for what belongs to no layer."""
    unit: int
    """Number of the feature or the head; -1 for what has neither."""
    token: int
    """Where it writes."""
    source: int = -1
    """The token that a head reads."""

    @property
    def key(self) -> str:
        """All that identifies it, as one text: the name leaves out where a head writes."""
        return "/".join(str(part) for part in self)

    @property
    def row(self) -> int:
        """Its place from the inputs up: remainders, embeddings, heads and MLP by layer, logits."""
        if self.layer < 0:
            return 0 if self.kind == "embed" else -1
        match self.kind:
            case "head":
                return 2 * self.layer + 1
            case _:
                return 2 * self.layer + 2

    @property
    def row_name(self) -> str:
        """What to call its row."""
        if self.layer < 0:
            return "embedding" if self.kind == "embed" else "remainders"
        match self.kind:
            case "head":
                return f"heads {self.layer}"
            case "target":
                return "logits"
            case _:
                return f"MLP {self.layer}"

    def __str__(self) -> str:
        match self.kind:
            case "feature":
                return f"tc{self.layer}[{self.unit}]@{self.token}"
            case "head":
                return f"attn{self.layer}[{self.unit}]@{self.source}"
            case "mlp" | "error":
                return f"{self.kind}{self.layer}@{self.token}"
            case _:
                return f"{self.kind}@{self.token}"


class FeatureName(NamedTuple):
    """``tc10[5315]@8``."""

    layer: int
    unit: int | None
    """None: the one that is most active."""
    token: int


class LogitName(NamedTuple):
    """``logit[ 40]-logit[ 20]@-1``: a sum of logits with signs."""

    terms: tuple[tuple[float, str], ...]
    """Weight and text of each token."""
    token: int


FEATURE = re.compile(r"tc(\d+)\[(\d+|top)\]@(-?\d+)")
# A token may itself hold a bracket: it ends at one that a sign or the final @ follows.
LOGIT_TERM = re.compile(r"\s*([+-]?)\s*logit\[(.+?)\]\s*(?=[+-]\s*logit\[|@$)", re.DOTALL)


def parse_head(text: str) -> tuple[int, int]:
    """Layer and head of a text such as ``attn9[1]``.

    Raises:
        UserError: it is no such text.
    """
    if found := re.fullmatch(r"attn(\d+)\[(\d+)\]", text.strip()):
        return int(found[1]), int(found[2])
    raise UserError(f"head {text!r}: expected a layer and head such as attn9[1]")


def parse_target(text: str) -> FeatureName | LogitName:
    """Read the name of a target.

    Raises:
        UserError: it is neither a feature nor a sum of logits.
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
