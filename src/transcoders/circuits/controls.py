"""Is a circuit better than other sets of as many parts?

A circuit is measured twice. **Necessity**: how far the target falls when the circuit's parts are
replaced by their means, and all else is kept. **Sufficiency**: how far the target rises above that
of the model without any part, when the circuit's parts alone are kept. Both are large for any set
that is large enough. So both are also measured for other sets. These have as many parts of the same
kinds and layers, chosen among the parts that are active on the prompt at tokens that the target can
see:

- ``random``: drawn at random;
- ``random at tokens``: drawn at random, as many at each token as the circuit has there. A circuit
  may stand out from the sets above by its tokens alone, but from these only by its features and
  heads. (An MLP without a transcoder has no other to be exchanged for.)
- ``strongest``: the most active features, and the heads and MLPs that write the longest vectors.

If the circuit were one of the random sets, its effect would be equally likely to have any rank
among theirs. So the share of the sets, with the circuit's own among them, that have at least its
effect is a p-value, and at least 1 / (draws + 1).
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from transcoders.circuits.faithfulness import Means, replaceable_parts, values_of_sets
from transcoders.circuits.notation import Node, NodeKind
from transcoders.circuits.replacement import LocalReplacementModel
from transcoders.circuits.vectors import Target

DRAWS = 39
"""Random sets of each kind, so that no p-value is below 1 in 40."""
CIRCUIT, EVERYTHING, STRONGEST = "circuit", "everything", "strongest"
RANDOM, RANDOM_AT_TOKENS = "random", "random at tokens"
MEASURES = ("necessity", "sufficiency")
Stratum = Callable[[Node], tuple[Any, ...]]
"""What a member of a control shares with the part of the circuit that it stands for."""
OF_LAYER: Stratum = attrgetter("kind", "layer")
DRAWN: dict[str, Stratum] = {
    RANDOM: OF_LAYER,
    RANDOM_AT_TOKENS: attrgetter("kind", "layer", "token"),
}


def control_effects(
    local: LocalReplacementModel,
    target: Target,
    nodes: Sequence[Node],
    means: Means,
    *,
    seed: int,
    draws: int = DRAWS,
) -> pd.DataFrame:
    """Necessity and sufficiency of a circuit and of other sets of as many parts.

    Args:
        local: of the prompt.
        target: what is explained.
        nodes: of the circuit. Only parts that can be replaced count.
        means: what replaces a part.
        seed: of the random draws.
        draws: random sets of each kind.

    Returns:
        Columns ``measure`` (:data:`MEASURES`), ``set``, ``draw`` (0 for sets that are not drawn)
        and ``effect``, in units of the target. The set ``everything`` holds all parts of the model,
        the errors of transcoders too; its effect is what there is to explain.
    """
    sizes = part_sizes(local, target)
    circuit = [part for part in replaceable_parts(nodes) if part in sizes]
    by_size = sorted(sizes, key=lambda part: -sizes[part])
    shuffled = np.random.default_rng(seed).permutation
    sets = [(CIRCUIT, 0, circuit), (STRONGEST, 0, parts_like(circuit, by_size, OF_LAYER))]
    sets += [
        (name, draw, parts_like(circuit, list(sizes), stratum, shuffled))
        for name, stratum in DRAWN.items()
        for draw in range(draws)
    ]
    only, without = values_of_sets(local, target, [[], *(parts for *_, parts in sets)], means)
    nothing, whole = only[0], without[0]
    effects = [whole - value for value in without[1:]], [value - nothing for value in only[1:]]
    rows: list[tuple[str, str, int, float]] = []
    for measure, found in zip(MEASURES, effects, strict=True):
        rows.append((measure, EVERYTHING, 0, whole - nothing))
        rows += [(measure, name, n, x) for (name, n, _), x in zip(sets, found, strict=True)]
    return pd.DataFrame(rows, columns=["measure", "set", "draw", "effect"])


def part_sizes(local: LocalReplacementModel, target: Target) -> dict[Node, float]:
    """The parts that are active on the prompt, in a fixed order, and how strong each is.

    The strength of a feature is its activation. That of a head (at a token, from all sources) or of
    an MLP is the norm of what it writes. Parts at tokens that are always kept, or after the
    target's, are left out, and so is the target itself.
    """
    replacement, active = local.replacement, local.active
    columns = (active.layer, active.token, active.unit, active.z)
    sizes = {
        Node.at(NodeKind.FEATURE, *place): z
        for *place, z in zip(*(column.tolist() for column in columns), strict=True)
    }
    for layer in range(replacement.n_layers):
        mixed = local.passed.attention(layer) @ local.values[layer]
        norms = {NodeKind.HEAD: (mixed @ replacement.W_O[layer]).norm(dim=2)}  # (head, token)
        if layer not in replacement.transcoders:
            norms[NodeKind.MLP] = local.mlp_out[layer].norm(dim=1)
        for kind, of_kind in norms.items():
            for place, norm in np.ndenumerate(of_kind.cpu().numpy()):
                sizes[Node.at(kind, layer, *place)] = float(norm)
    seen = range(replacement.first_position, target.node.token + 1)
    sizes.pop(target.node, None)
    return {part: sizes[part] for part in sorted(sizes) if part.token in seen}


def parts_like(
    circuit: Sequence[Node],
    among: Sequence[Node],
    stratum: Stratum,
    order: Callable[[int], Iterable[int]] = range,
) -> list[Node]:
    """As many parts of each stratum as the circuit has; the circuit's own may be among them.

    Args:
        circuit: its parts.
        among: all that may be chosen.
        stratum: of a part.
        order: given the number of a stratum's members, the order in which they are chosen: as they
            come, or drawn without replacement.
    """
    members: dict[tuple[Any, ...], list[Node]] = defaultdict(list)
    for part in among:
        members[stratum(part)].append(part)
    return [
        members[name][place]
        for name, n in sorted(Counter(map(stratum, circuit)).items())
        for place in list(order(len(members[name])))[:n]
    ]


class Comparison(NamedTuple):
    """A circuit's effect among those of random sets."""

    measure: str
    control: str
    effect: float
    """Of the circuit, in units of the target."""
    everything: float
    """Of all parts: what there is to explain."""
    strongest: float
    """Of as many of the strongest parts."""
    median: float
    """Of the random sets."""
    rank: int
    """1 if no random set has at least the circuit's effect."""
    of: int
    """Random sets and the circuit. ``rank / of`` is the p-value."""


def comparisons(controls: pd.DataFrame) -> list[Comparison]:
    """The rank of a circuit among random sets, for each measure and kind of random set."""
    found = []
    for measure in MEASURES:
        of_measure = controls[controls["measure"] == measure].groupby("set")["effect"]
        single = of_measure.first()
        for control in DRAWN:
            drawn = of_measure.get_group(control)
            # Sets that are measured in different batches differ by rounding.
            margin = 1e-5 * abs(single[EVERYTHING])
            rank = 1 + int((drawn >= single[CIRCUIT] - margin).sum())
            found.append(
                Comparison(
                    measure,
                    control,
                    effect=float(single[CIRCUIT]),
                    everything=float(single[EVERYTHING]),
                    strongest=float(single[STRONGEST]),
                    median=float(drawn.median()),
                    rank=rank,
                    of=len(drawn) + 1,
                )
            )
    return found
