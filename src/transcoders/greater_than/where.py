"""Where in the model greater-than is computed: ablation, attribution, and a rule that chooses.

Ablation removes what one MLP or head writes at the last position of the prompt. The loss is how far
the probability difference of the next token falls. **Zero** ablation removes everything (of a head,
all but the bias of its values, which does not depend on what the head reads). **Mean** ablation,
over the prompts of a template that have equally many tokens, removes only what depends on the year.
So a part that always gives an answer that is right for most years loses little by it.

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

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from transcoders.circuits.ablation import head_outputs
from transcoders.circuits.notation import Node, NodeKind
from transcoders.circuits.paths import Search, find_paths, strongest
from transcoders.circuits.replacement import LocalReplacementModel, ReplacementModel
from transcoders.circuits.vectors import FeatureVectors, Target, contributions, logit_target
from transcoders.circuits.verify import total_attributions
from transcoders.greater_than.answers import Answers
from transcoders.greater_than.task import AVERAGED_YEARS, Numbers, Prompts
from transcoders.models import interventions, mlp_output
from transcoders.progress import progress_bar

COMPONENTS = ("feature", "head", "embed")
EXAMPLE_YEARS = (20, 35, 60)
"""The strongest paths of these years are kept."""
PATHS_SHOWN = 10
Visit = Callable[[LocalReplacementModel, Prompts, int, Target], None]
"""Is given each prompt, frozen, its group, its year and its target."""


class Where(NamedTuple):
    """Where the model computes greater-than."""

    layer: int
    """Of the chosen MLP."""
    head: tuple[int, int]
    """Layer and number of the chosen head."""
    logit_difference: float
    next_token_difference: float
    """Of probabilities."""
    table: pd.DataFrame
    """``where.csv``: ablations, attributions, and what heads carry to the chosen MLP."""
    recurring: "Recurring"


def find_where(
    replacement: ReplacementModel, numbers: Numbers, groups: Sequence[Prompts], search: Search
) -> Where:
    """Ablate and attribute on all prompts, and apply the rule."""
    recurring = Recurring(search)
    found = attribute(replacement, numbers, groups, recurring.add)
    difference, ablations = ablate(replacement, numbers, groups)
    layer, head = choose(replacement, found)
    is_mlp, into = ablations["kind"] == "mlp", found.into_mlps[layer]
    places = list(zip(ablations["layer"], ablations["head"], strict=True))
    attributions = [found.mlps[i] if h < 0 else found.heads[i, h] for i, h in places]
    carried = [torch.tensor(torch.nan) if h < 0 else into[i, h] for i, h in places]
    table = ablations.assign(
        attribution=[value.item() for value in attributions],
        into_chosen_mlp=[value.item() for value in carried],
        has_transcoder=is_mlp & ablations["layer"].isin(list(replacement.transcoders)),
    )
    return Where(layer, head, found.value, difference, table, recurring)


class Attributions(NamedTuple):
    """Attributions to the logit difference, averaged over prompts."""

    value: float
    """The logit difference itself."""
    mlps: Float[Tensor, " layer"]
    heads: Float[Tensor, "layer head"]
    into_mlps: dict[int, Float[Tensor, "layer head"]]
    """For each transcoder, what heads carry to its features, reading the year's token."""


def attribute(
    replacement: ReplacementModel,
    numbers: Numbers,
    groups: Iterable[Prompts],
    visit: Visit = lambda *_: None,
) -> Attributions:
    """Attribute the logit difference on every prompt that has one.

    Args:
        replacement: the model with its transcoders.
        numbers: how its tokenizer writes years.
        groups: the prompts of all templates.
        visit: is called for each prompt.
    """
    values: list[float] = []
    n_layers, n_heads = replacement.n_layers, replacement.n_heads
    mlps, heads = torch.zeros(n_layers), torch.zeros(n_layers, n_heads)
    into = {layer: torch.zeros(n_layers, n_heads) for layer in replacement.transcoders}
    prompts = [
        (group, row, year, weights)
        for group in groups
        for row, year in zip(group.rows, group.years.tolist(), strict=True)
        if (weights := numbers.contrast(year)) is not None
    ]
    with progress_bar(len(prompts), "attributing", "prompts") as bar:
        for group, row, year, weights in prompts:
            local = replacement.freeze(row.to(replacement.W_O.device))
            target = logit_target(local, weights, -1, name=f"greater than {year:02d}")
            totals = total_attributions(local, target)
            values.append(target.value)
            mlps += totals.mlps.sum(dim=1).cpu()
            heads += totals.heads.sum(dim=(2, 3)).cpu()
            for layer, of_features in totals.features.items():
                mlps[layer] += of_features.sum().cpu()
                into[layer] += _through_heads(local, layer, of_features, group.year_token).cpu()
            visit(local, group, year, target)
            bar.update(1)
    n = len(values)
    into = {layer: part / n for layer, part in into.items()}
    return Attributions(sum(values) / n, mlps / n, heads / n, into)


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
    depth = torch.full_like(tokens, int(replacement.mlp_reads(layer)))
    found = contributions(local, FeatureVectors(read, depth, tokens, read.new_zeros(len(tokens))))
    of_heads = found.values[:, found.columns.kind == NodeKind.HEAD.code].sum(dim=0)
    return of_heads.view(replacement.n_layers, replacement.n_heads, local.n_tokens)[:, :, source]


def choose(replacement: ReplacementModel, found: Attributions) -> tuple[int, tuple[int, int]]:
    """Apply the rule: the layer of the MLP, then the layer and number of the head."""
    layers = [layer for layer in replacement.transcoders if layer > 0]
    layer = max(layers, key=found.mlps.__getitem__)
    seen = (replacement.attention_writes <= replacement.mlp_reads(layer)).cpu()
    # Heads that write too late are out. The others may all have negative attributions.
    heads = found.into_mlps[layer].masked_fill(~seen[:, None], -torch.inf)
    at, head = divmod(int(heads.argmax()), replacement.n_heads)
    return layer, (at, head)


def ablate(
    replacement: ReplacementModel, numbers: Numbers, groups: Iterable[Prompts]
) -> tuple[float, pd.DataFrame]:
    """Ablate every MLP and every head at the last position.

    Returns:
        The probability difference of the next token in the model as it is, and a table ``part``
        (``mlp10``, ``attn9[1]``), ``kind``, ``layer``, ``head`` (-1 for an MLP), ``zero``,
        ``mean``: the difference lost by each ablation. All are averages over templates and
        the years of :data:`AVERAGED_YEARS`.
    """
    model = replacement.model
    answers = [Answers(model, numbers, group, next_only=True) for group in groups]
    averaged = [
        (each.years >= AVERAGED_YEARS.start) & (each.years < AVERAGED_YEARS.stop)
        for each in answers
    ]
    n_years = sum(int(years.sum()) for years in averaged)

    def difference(first_layer: int, changes: Mapping[str, Callable[[Tensor], Tensor]]) -> float:
        total = 0.0
        for each, years in zip(answers, averaged, strict=True):
            with interventions(model, changes, each.shape):
                p = each.next_probabilities(first_layer)
            total += (p * numbers.signs(each.years)).sum(dim=1)[years].sum().item()
        return total / n_years

    original = difference(replacement.n_layers - 1, {})
    rows = []
    with progress_bar(replacement.n_layers, "ablating", "layers") as bar:
        for layer in range(replacement.n_layers):
            for head in range(-1, replacement.n_heads):
                hook = mlp_output(layer) if head < 0 else head_outputs(layer)
                part, kind = (
                    (f"mlp{layer}", "mlp") if head < 0 else (f"attn{layer}[{head}]", "head")
                )
                lost = [
                    original - difference(layer, {hook: partial(_ablated, to=to, head=head)})
                    for to in (torch.zeros_like, _mean)
                ]
                rows.append((part, kind, layer, head, *lost))
            bar.update(1)
    return original, pd.DataFrame(rows, columns=["part", "kind", "layer", "head", "zero", "mean"])


def _mean(values: Tensor) -> Tensor:
    return values.mean(dim=0, keepdim=True).expand_as(values)


def _ablated(output: Tensor, *, to: Callable[[Tensor], Tensor], head: int) -> Tensor:
    """An MLP's output, ablated to zero or to its mean, or that of all heads with one ablated."""
    if head < 0:
        return to(output)
    output = output.clone()
    output[:, :, head] = to(output[:, :, head])
    return output


class Recurring:
    """Counts which features and heads are on the paths of the prompts."""

    def __init__(self, search: Search) -> None:
        self.search = search
        self.n_prompts = 0
        self._prompts: dict[tuple[str, str], int] = defaultdict(int)
        self._attributions: dict[tuple[str, str], float] = defaultdict(float)
        self._examples: list[tuple[int, int, int, float, str]] = []

    def add(
        self, local: LocalReplacementModel, prompts: Prompts, year: int, target: Target
    ) -> None:
        """Find the paths of one prompt and count the parts on them."""
        paths = find_paths(local, target, self.search)
        here: set[tuple[str, str]] = set()
        for path in paths[1:]:
            if path.node.kind.reads:
                part = _part(path.node, prompts)
                here.add(part)
                self._attributions[part] += path.attribution
        for part in here:
            self._prompts[part] += 1
        self.n_prompts += 1
        if year in EXAMPLE_YEARS:
            for rank, path in enumerate(strongest(paths, PATHS_SHOWN), start=1):
                example = (prompts.template + 1, year, rank, path.attribution, str(path))
                self._examples.append(example)

    def table(self) -> pd.DataFrame:
        """Rows ``part, token, prompts, share, attribution``, those of most prompts first."""
        n = self.n_prompts
        rows = [
            (*part, count, count / n, self._attributions[part] / n)
            for part, count in self._prompts.items()
        ]
        columns = ["part", "token", "prompts", "share", "attribution"]
        return pd.DataFrame(rows, columns=columns).sort_values(
            ["prompts", "attribution"], ascending=False, kind="stable", ignore_index=True
        )

    def examples(self) -> pd.DataFrame:
        """Rows ``template, year, rank, attribution, path`` of a few prompts."""
        columns = ["template", "year", "rank", "attribution", "path"]
        return pd.DataFrame(self._examples, columns=columns)


def _part(node: Node, prompts: Prompts) -> tuple[str, str]:
    """Name of a feature or head on any prompt, and the token that it lies at or reads."""
    token = node.source if node.kind == "head" else node.token
    name = str(node).split("@")[0]
    if token == prompts.year_token:
        return name, "year"
    return name, "last" if token == prompts.rows.shape[1] - 1 else "other"
