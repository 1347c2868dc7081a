"""Where in the model greater-than is computed: ablation, attribution, and a rule that chooses.

Ablation takes away what one MLP or head writes at the last position of the prompt and asks what
that does to the probability difference of the next token. **Zero** ablation takes away everything
(of a head, all but the bias of its values, which it adds whatever it reads), **mean** ablation
(over the prompts of a template that have equally many tokens) only what depends on the year. A part
whose answer is right for most years whatever the year loses little by it.

Attribution splits the logit difference exactly, with attention patterns, scales and active
features held fixed (:mod:`transcoders.circuits`). An MLP's is the sum over all paths that start at
its features, at any token; without a transcoder, that of its output as a whole.

The rule: the MLP is the one with the largest attribution among those with a transcoder, layer 0
left out (it feeds everything); the head is the one that carries most of the attribution of that
MLP's features, reading the year.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from transcoders.circuits.faithfulness import head_outputs
from transcoders.circuits.notation import NodeKind
from transcoders.circuits.replacement import LocalReplacementModel, ReplacementModel
from transcoders.circuits.vectors import FeatureVectors, contributions, logit_target
from transcoders.circuits.verify import total_attributions
from transcoders.greater_than.answers import Answers
from transcoders.greater_than.task import AVERAGED_YEARS, Numbers, Prompts
from transcoders.models import interventions, mlp_output
from transcoders.progress import progress_bar

ABLATIONS = ("zero", "mean")


class Attributions(NamedTuple):
    """Of the logit difference, averaged over prompts."""

    value: float
    """The logit difference itself."""
    mlps: Float[Tensor, " layer"]
    heads: Float[Tensor, "layer head"]
    into_mlps: dict[int, Float[Tensor, "layer head"]]
    """For each transcoder, what heads carry to its features, reading the year's token."""


class Chosen(NamedTuple):
    """What the rule finds."""

    layer: int
    """Of the MLP."""
    head: tuple[int, int]
    """Layer and number."""


def attribute(
    circuit: ReplacementModel,
    numbers: Numbers,
    prompts: Iterable[Prompts],
    visit: Callable[[LocalReplacementModel, Prompts, int, Any], None] | None = None,
) -> Attributions:
    """Attribute the logit difference on every prompt that has one.

    Args:
        circuit: the model with its transcoders.
        numbers: how it writes years.
        prompts: of all templates.
        visit: is given each prompt, frozen, its group, its year and its target.
    """
    groups = list(prompts)
    device = circuit.W_O.device
    values = []
    n_layers, n_heads = circuit.n_layers, circuit.n_heads
    mlps, heads = torch.zeros(n_layers), torch.zeros(n_layers, n_heads)
    into = {layer: torch.zeros(n_layers, n_heads) for layer in circuit.transcoders}
    with progress_bar(sum(len(group.years) for group in groups), "attributing", "prompts") as bar:
        for group in groups:
            for row, year in zip(group.rows, group.years.tolist(), strict=True):
                bar.update(1)
                weights = numbers.contrast(year)
                if weights is None:
                    continue
                local = circuit.freeze(row.to(device))
                target = logit_target(local, weights, -1, name=f"greater than {year:02d}")
                totals = total_attributions(local, target)
                values.append(target.value)
                mlps += totals.mlps.sum(dim=1).cpu()
                heads += totals.heads.sum(dim=(2, 3)).cpu()
                for layer, of_features in zip(circuit.transcoders, totals.features, strict=True):
                    mlps[layer] += of_features.sum().cpu()
                    into[layer] += _through_heads(local, layer, of_features, group.year_token).cpu()
                if visit is not None:
                    visit(local, group, year, target)
    n = len(values)
    return Attributions(
        sum(values) / n, mlps / n, heads / n, {layer: part / n for layer, part in into.items()}
    )


def _through_heads(
    local: LocalReplacementModel,
    layer: int,
    attributions: Float[Tensor, "token n_features"],
    source: int,
) -> Float[Tensor, "layer head"]:
    """What each head, reading one token, adds to the target by way of a layer's features."""
    circuit, transcoder = local.circuit, local.circuit.transcoders[layer]
    scale = local.passed.mlp_scale[layer, :, None]
    # As attribution computes it, so that the quotient below is exact however small it is.
    z = circuit.centre(local.passed.before_mlp[layer]) / scale @ transcoder.W_enc + transcoder.b_enc
    # A feature's attribution over its activation: what one unit of it is worth to the target.
    per_unit = torch.where(attributions != 0, attributions / z, 0.0)
    read = circuit.centre(per_unit @ transcoder.W_enc.T) / scale
    tokens = torch.arange(local.n_tokens, device=read.device)
    depth = torch.full_like(tokens, int(circuit.mlp_reads(layer)))
    found = contributions(local, FeatureVectors(read, depth, tokens, read.new_zeros(len(tokens))))
    of_heads = found.values[:, found.columns.kind == NodeKind.HEAD.code].sum(dim=0)
    return of_heads.view(circuit.n_layers, circuit.n_heads, local.n_tokens)[:, :, source]


def choose(circuit: ReplacementModel, found: Attributions) -> Chosen:
    """Apply the rule to what was found."""
    layer = max((layer for layer in circuit.transcoders if layer > 0), key=found.mlps.__getitem__)
    seen = (circuit.attention_writes <= circuit.mlp_reads(layer)).cpu()
    # Heads that write too late have no say; the others may all have a negative one.
    heads = found.into_mlps[layer].masked_fill(~seen[:, None], -torch.inf)
    at, head = divmod(int(heads.argmax()), circuit.n_heads)
    return Chosen(layer, (at, head))


def ablate(
    circuit: ReplacementModel, numbers: Numbers, prompts: Iterable[Prompts]
) -> tuple[float, pd.DataFrame]:
    """Ablate every MLP and every head at the last position.

    Returns:
        The probability difference of the next token in the model as it is, and a table ``part``
        (``mlp10``, ``attn9[1]``), ``kind``, ``layer``, ``head`` (-1 for an MLP), ``zero``,
        ``mean``: the difference lost by each ablation. All are averages over templates and
        the years of :data:`AVERAGED_YEARS`.
    """
    model = circuit.model
    answers = [Answers(model, numbers, group, next_only=True) for group in prompts]
    n_years = sum(int(_averaged(each.years).sum()) for each in answers)

    def difference(first_layer: int, changes: Mapping[str, Callable[[Tensor], Tensor]]) -> float:
        total = 0.0
        for each in answers:
            with interventions(model, changes, each.shape):
                p = each.next_probabilities(first_layer)
            by_prompt = (p * numbers.signs(each.years)).sum(dim=1)
            total += by_prompt[_averaged(each.years)].sum().item()
        return total / n_years

    original = difference(circuit.n_layers - 1, {})
    rows = []
    with progress_bar(circuit.n_layers, "ablating", "layers") as bar:
        for layer in range(circuit.n_layers):
            for head in range(-1, circuit.n_heads):
                hook = mlp_output(layer) if head < 0 else head_outputs(layer)
                lost = {}
                for ablation in ABLATIONS:
                    change = partial(_ablate, ablation=ablation, head=head)
                    lost[ablation] = original - difference(layer, {hook: change})
                part = f"mlp{layer}" if head < 0 else f"attn{layer}[{head}]"
                kind = "mlp" if head < 0 else "head"
                rows.append({"part": part, "kind": kind, "layer": layer, "head": head, **lost})
            bar.update(1)
    return original, pd.DataFrame(rows)


def _averaged(years: Tensor) -> Tensor:
    return (years >= AVERAGED_YEARS.start) & (years < AVERAGED_YEARS.stop)


def _ablated(values: Tensor, ablation: str) -> Tensor:
    if ablation == "zero":
        return torch.zeros_like(values)
    return values.mean(dim=0, keepdim=True).expand_as(values)


def _ablate(output: Tensor, *, ablation: str, head: int) -> Tensor:
    """An MLP's output without what it says of the year, or that of all heads without one's."""
    if head < 0:
        return _ablated(output, ablation)
    output = output.clone()
    output[:, :, head] = _ablated(output[:, :, head], ablation)
    return output
