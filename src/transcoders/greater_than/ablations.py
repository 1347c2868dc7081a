"""How much of greater-than is lost when a part of the model is ablated.

Ablation removes what one MLP or head writes at the last position of the prompt. The loss is how far
the probability difference of the next token falls. **Zero** ablation removes everything (of a head,
all but the bias of its values, which does not depend on what the head reads). **Mean** ablation,
over those prompts of a template that have the same number of tokens, removes only what depends on
the year. So a part that always gives an answer that is right for most years loses little by it.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from transcoders.circuits.ablation import head_outputs
from transcoders.circuits.replacement import ReplacementModel
from transcoders.greater_than.answers import Answers
from transcoders.greater_than.estimates import joint_lead, lead_of
from transcoders.greater_than.task import AVERAGED_YEARS, Numbers, Prompts
from transcoders.models import interventions, mlp_output
from transcoders.progress import progress_bar


def ablate(
    replacement: ReplacementModel, numbers: Numbers, groups: Iterable[Prompts]
) -> tuple[float, pd.DataFrame, Float[np.ndarray, "part year"]]:
    """Ablate every MLP and every head at the last position.

    Returns:
        The probability difference of the next token in the model as it is; a table ``part``
        (``mlp10``, ``attn9[1]``), ``kind``, ``layer``, ``head`` (-1 for an MLP), ``zero``,
        ``mean``: the difference lost by each ablation; and what mean ablation of each part loses by
        year. All are means over templates, and the first two over the years of
        :data:`AVERAGED_YEARS` too.
    """
    model = replacement.model
    answers = [Answers(model, numbers, group, next_only=True) for group in groups]
    n_templates = torch.zeros(100)
    for each in answers:
        n_templates[each.years] += 1

    def difference(
        first_layer: int, changes: Mapping[str, Callable[[Tensor], Tensor]]
    ) -> Float[Tensor, " year"]:
        total = torch.zeros(100, dtype=torch.double)
        for each in answers:
            with interventions(model, changes, each.shape):
                p = each.probabilities(first_layer)
            total[each.years] += (p * numbers.signs(each.years)).sum(dim=1)
        return (total / n_templates)[AVERAGED_YEARS]

    original = difference(replacement.n_layers - 1, {})
    rows, by_year = [], []
    with progress_bar(replacement.n_layers, "ablating", "layers") as bar:
        for layer in range(replacement.n_layers):
            for head in range(-1, replacement.n_heads):
                hook = mlp_output(layer) if head < 0 else head_outputs(layer)
                zero, mean = (
                    original - difference(layer, {hook: partial(_ablated, to=to, head=head)})
                    for to in (torch.zeros_like, _mean)
                )
                part, kind = part_name(layer, head), "mlp" if head < 0 else "head"
                rows.append((part, kind, layer, head, zero.mean().item(), mean.mean().item()))
                by_year.append(mean.numpy())
            bar.update(1)
    table = pd.DataFrame(rows, columns=["part", "kind", "layer", "head", "zero", "mean"])
    return original.mean().item(), table, np.stack(by_year)


def part_name(layer: int, head: int = -1) -> str:
    """``mlp10``, or ``attn9[1]`` for a head."""
    return f"mlp{layer}" if head < 0 else f"attn{layer}[{head}]"


def leads(
    ablations: pd.DataFrame,
    losses: Float[np.ndarray, "part year"],
    layer: int,
    head: tuple[int, int],
    *,
    seed: int,
) -> dict[str, Any]:
    """How far the chosen MLP and head are ahead of all others of their kind by mean ablation.

    Ablation knows nothing of transcoders, so it can disagree with the rule.

    Args:
        ablations: the table of :func:`ablate`.
        losses: what the parts of that table lose by year.
        layer: of the chosen MLP.
        head: layer and number of the chosen head.
        seed: of the resampling.

    Returns:
        Fit for JSON: the ``lead`` that both have over the best of the others; and for each of the
        ``parts``, the share of resamples in which it ranks ``first``, and the number of
        ``candidates``.
    """
    found, parts = [], []
    for kind, part in (("mlp", part_name(layer)), ("head", part_name(*head))):
        of_kind = (ablations["kind"] == kind).to_numpy()
        place = ablations.loc[of_kind, "part"].tolist().index(part)
        lead = lead_of(losses[of_kind], place, seed=seed)
        first, candidates = float((lead[1:] > 0).mean()), int(of_kind.sum())
        found.append(lead)
        parts.append({"part": part, "first": first, "candidates": candidates})
    return {"lead": joint_lead(found).record(), "parts": parts}


def _mean(values: Tensor) -> Tensor:
    return values.mean(dim=0, keepdim=True).expand_as(values)


def _ablated(output: Tensor, *, to: Callable[[Tensor], Tensor], head: int) -> Tensor:
    """An MLP's output, ablated to zero or to its mean, or that of all heads with one ablated."""
    if head < 0:
        return to(output)
    output = output.clone()
    output[:, :, head] = to(output[:, :, head])
    return output
