"""Where in the model greater-than is computed: attribution, and a rule that chooses.

Attribution splits the logit difference exactly, with attention patterns, scales and active
features held fixed (:mod:`transcoders.circuits`). An MLP's attribution is the sum over all paths
that start at its features, at any token; without a transcoder, that of its whole output.

The rule: the MLP is the one with the largest attribution among those with a transcoder. Layer 0 is
left out, since it feeds everything. The head is the one that carries most of the attribution of
that MLP's features, reading the year.

Algorithm 1 also explains each logit difference. A feature or head **recurs** as often as a prompt
has a path through it. Its attribution is the sum over the paths that end there, averaged over
prompts. A feature lies at a token and a head reads one: that of the year (its tens digit), the
last, or another.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from transcoders.circuits.notation import Node, NodeKind
from transcoders.circuits.paths import Search, find_paths, strongest
from transcoders.circuits.replacement import LocalReplacementModel, ReplacementModel
from transcoders.circuits.vectors import FeatureVectors, Target, head_contributions, logit_target
from transcoders.circuits.verify import TotalAttributions
from transcoders.greater_than.task import Numbers, Prompts
from transcoders.progress import progress_bar

COMPONENTS = ("feature", "head", "embed")
EXAMPLE_YEARS = (20, 35, 60)
"""The strongest paths of these years are kept."""
PATHS_SHOWN = 10


@dataclass(frozen=True)
class Attributions:
    """Attributions to the logit difference, averaged over prompts, and the paths of the prompts."""

    n_prompts: int
    value: float
    """The logit difference itself."""
    mlps: Float[Tensor, " layer"]
    heads: Float[Tensor, "layer head"]
    into_mlps: dict[int, Float[Tensor, "layer head"]]
    """For each transcoder, what heads carry to its features, reading the year's token."""
    recurring: pd.DataFrame
    """Rows ``part, token, prompts, share, attribution``, those on most prompts first."""
    examples: pd.DataFrame
    """Rows ``template, year, rank, attribution, path`` of a few prompts."""


def attribute(
    replacement: ReplacementModel, numbers: Numbers, groups: Iterable[Prompts], search: Search
) -> Attributions:
    """Attribute the logit difference on every prompt that has one, and find its paths.

    Args:
        replacement: the model with its transcoders.
        numbers: how its tokenizer writes years.
        groups: the prompts of all templates.
        search: for paths.
    """
    layers, n_heads = range(replacement.n_layers), replacement.n_heads
    mlps, heads = torch.zeros(len(layers)), torch.zeros(len(layers), n_heads)
    into = {layer: torch.zeros_like(heads) for layer in replacement.transcoders}
    values, ends, examples = [], [], []
    for group, year, local, target in _frozen(replacement, numbers, groups):
        totals = TotalAttributions(local, target)
        mlps += torch.stack([totals[NodeKind.MLP, i] for i in layers]).sum(dim=1).cpu()
        heads += torch.stack([totals[NodeKind.HEAD, i] for i in layers]).sum(dim=(2, 3)).cpu()
        for layer in into:
            of_features = totals[NodeKind.FEATURE, layer]
            mlps[layer] += of_features.sum().cpu()
            into[layer] += _through_heads(local, layer, of_features, group.year_token).cpu()
        paths = find_paths(local, target, search)
        values.append(target.value)
        ends += [
            (len(values), *_part(path.node, group), path.attribution)
            for path in paths[1:]
            if path.node.kind.reads
        ]
        if year in EXAMPLE_YEARS:
            best = enumerate(strongest(paths, PATHS_SHOWN), start=1)
            number = group.template + 1
            examples += [(number, year, rank, p.attribution, str(p)) for rank, p in best]
    n, columns = len(values), ["template", "year", "rank", "attribution", "path"]
    return Attributions(
        n_prompts=n,
        value=sum(values) / n,
        mlps=mlps / n,
        heads=heads / n,
        into_mlps={layer: part / n for layer, part in into.items()},
        recurring=_recurring(ends, n),
        examples=pd.DataFrame(examples, columns=columns),
    )


def _frozen(
    replacement: ReplacementModel, numbers: Numbers, groups: Iterable[Prompts]
) -> Iterator[tuple[Prompts, int, LocalReplacementModel, Target]]:
    """Every prompt that has a logit difference: its group, its year, what is frozen, its target."""
    prompts = [
        (group, row, year, weights)
        for group in groups
        for row, year in zip(group.rows, group.years.tolist(), strict=True)
        if (weights := numbers.contrast(year)) is not None
    ]
    with progress_bar(len(prompts), "attributing", "prompts") as bar:
        for group, row, year, weights in prompts:
            local = replacement.freeze(row.to(replacement.W_O.device))
            yield group, year, local, logit_target(local, weights, -1, name=f"after {year:02d}")
            bar.update(1)


def _part(node: Node, prompts: Prompts) -> tuple[str, str]:
    """Name of a feature or head on any prompt, and the token that it lies at or reads."""
    token = node.source if node.kind == "head" else node.token
    if token == prompts.year_token:
        return node.name, "year"
    return node.name, "last" if token == prompts.rows.shape[1] - 1 else "other"


def _recurring(ends: list[tuple[int, str, str, float]], n_prompts: int) -> pd.DataFrame:
    """On how many prompts each part is on a path.

    Args:
        ends: of each path that ends in a feature or head: number of the prompt, part, token,
            attribution. Every part of a path is the end of a shorter one.
        n_prompts: of all prompts.
    """
    table = pd.DataFrame(ends, columns=["prompt", "part", "token", "attribution"])
    found = table.groupby(["part", "token"], as_index=False, sort=False).agg(
        prompts=("prompt", "nunique"), attribution=("attribution", partial(sum, start=0.0))
    )
    found.insert(3, "share", found["prompts"] / n_prompts)
    found["attribution"] /= n_prompts
    return found.sort_values(
        ["prompts", "attribution"], ascending=False, kind="stable", ignore_index=True
    )


def _through_heads(
    local: LocalReplacementModel,
    layer: int,
    attributions: Float[Tensor, "token n_features"],
    source: int,
) -> Float[Tensor, "layer head"]:
    """What each head, reading one token, adds to the target by way of a layer's features."""
    replacement, transcoder = local.replacement, local.replacement.transcoders[layer]
    scale = local.passed.mlp_scale[layer, :, None]
    # Computed as attribution computes it, so that the quotient below is exact even if it is small.
    read = replacement.centre(local.passed.before_mlp[layer]) / scale
    z = read @ transcoder.W_enc + transcoder.b_enc
    # A feature's attribution over its activation: what one unit of it is worth to the target.
    per_unit = torch.where(attributions != 0, attributions / z, 0.0)
    read = replacement.centre(per_unit @ transcoder.W_enc.T) / scale
    tokens = torch.arange(local.n_tokens, device=read.device)
    depth = torch.full_like(tokens, int(replacement.mlp_reads[layer]))
    vectors = FeatureVectors(read, depth, tokens, read.new_zeros(len(tokens)))
    return head_contributions(local, vectors).sum(dim=0)[:, :, source]


def where_table(
    replacement: ReplacementModel, ablations: pd.DataFrame, found: Attributions, layer: int
) -> pd.DataFrame:
    """``where.csv``: ablations, attributions, and what heads carry to the MLP of a layer."""
    absent = torch.full((replacement.n_layers, 1), torch.nan)  # nothing is carried by an MLP
    # Rows are by layer, and in a layer the MLP comes before the heads.
    attributions = torch.cat([found.mlps[:, None], found.heads], dim=1)
    carried = torch.cat([absent, found.into_mlps[layer]], dim=1)
    has_transcoder = ablations["layer"].isin(list(replacement.transcoders))
    return ablations.assign(
        attribution=attributions.flatten().tolist(),
        into_chosen_mlp=carried.flatten().tolist(),
        has_transcoder=has_transcoder & (ablations["kind"] == "mlp"),
    )


def choose(replacement: ReplacementModel, found: Attributions) -> tuple[int, tuple[int, int]]:
    """Apply the rule: the layer of the MLP, then the layer and number of the head."""
    layers = [layer for layer in replacement.transcoders if layer > 0]
    layer = max(layers, key=found.mlps.__getitem__)
    seen = (replacement.attention_writes <= replacement.mlp_reads[layer]).cpu()
    # Heads that write too late are out. The others may all have negative attributions.
    heads = found.into_mlps[layer].masked_fill(~seen[:, None], -torch.inf)
    at, head = divmod(int(heads.argmax()), replacement.n_heads)
    return layer, (at, head)
