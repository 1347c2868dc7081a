"""What the output of the chosen MLP is made of: transcoder features, SAE features or neurons.

All three write the MLP's output as a sum over units plus a constant, so the same question can be
asked of each: how much of the task do a few units carry, the others set to zero? The constant
stays: ``b_dec`` of a dictionary, the output bias of an MLP.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from transcoders.dictionaries import SparseDictionary
from transcoders.errors import UserError
from transcoders.greater_than.answers import Answers
from transcoders.greater_than.task import Numbers, Prompts, metric
from transcoders.models import LanguageModel, captured, interventions, mlp_input, mlp_output

UnitKind = Literal["transcoder", "mlp_out_sae", "neurons"]


class Units:
    """The units of one kind on all prompts.

    Attributes:
        kind: of what.
        activations: (prompt, position, unit) for each group of prompts; positions are those of the
            tail, and then the alternatives.
        W_dec: (unit, d_model), what each unit writes.
        bias: (d_model), what is written besides.
    """

    def __init__(
        self, kind: UnitKind, activations: list[Tensor], W_dec: Tensor, bias: Tensor
    ) -> None:
        self.kind = kind
        self.activations = activations
        self.W_dec = W_dec
        self.bias = bias

    @property
    def n_units(self) -> int:
        """How many there are."""
        return len(self.W_dec)

    def output(
        self, group: int, kept: Int[Tensor, " kept"]
    ) -> Float[Tensor, "prompt position d_model"]:
        """What the MLP writes for a group of prompts if only some units are kept."""
        return self.activations[group][..., kept] @ self.W_dec[kept] + self.bias


class ChosenMLP:
    """The prompts run up to one MLP, ready to go on with another output of it.

    Attributes:
        groups: the prompts.
        units: by kind.
    """

    @torch.no_grad()
    def __init__(
        self,
        model: LanguageModel,
        numbers: Numbers,
        groups: Sequence[Prompts],
        layer: int,
        dictionaries: dict[UnitKind, SparseDictionary],
        *,
        first_position: int | None,
    ) -> None:
        """Run the prompts.

        Args:
            model: the language model.
            numbers: how it writes years.
            groups: the prompts.
            layer: of the MLP.
            dictionaries: the transcoder, and the SAE on the output if there is one.
            first_position: from which on the output is changed; None: only at the positions that
                predict a digit.
        """
        self.model = model
        self.layer = layer
        self.groups = groups
        self.last = []
        self._answers = []
        read: dict[str, list[Tensor]] = {"mlp_in": [], "mlp_out": [], "neurons": []}
        for prompts in groups:
            tail = 1 if first_position is None else prompts.rows.shape[1] - first_position
            answers = Answers(model, numbers, prompts, tail=tail)
            for name, values in _read(model, layer, answers).items():
                read[name].append(values)
            self._answers.append(answers)
            self.last.append(tail - 1)
        self.units: dict[UnitKind, Units] = {}
        for kind, dictionary in dictionaries.items():
            z = [dictionary.encode(values) for values in read[dictionary.traits.reads]]
            self.units[kind] = Units(kind, z, dictionary.W_dec, dictionary.b_dec)
        self.units["neurons"] = Units("neurons", read["neurons"], *_output_map(model, layer))

    @property
    def n_templates(self) -> int:
        """How many templates the prompts are made of."""
        return 1 + max(prompts.template for prompts in self.groups)

    @torch.no_grad()
    def metrics(
        self, outputs: Iterable[Float[Tensor, "prompt position d_model"]] | None = None
    ) -> Float[Tensor, "template 100"]:
        """The metric of every prompt, with an output for each group in place of the MLP's own."""
        result = torch.full((self.n_templates, 100), torch.nan)
        replaced: Iterable[Tensor | None] = (
            [None] * len(self.groups) if outputs is None else outputs
        )
        for prompts, answers, output in zip(self.groups, self._answers, replaced, strict=True):
            changes = {} if output is None else {mlp_output(self.layer): _replace_by(output)}
            with interventions(self.model, changes, answers.shape):
                p = answers.probabilities(self.layer)
            result[prompts.template, prompts.years] = metric(p, prompts.years)
        return result

    def with_kept(
        self, kind: UnitKind, kept: Int[Tensor, " kept"]
    ) -> Float[Tensor, "template 100"]:
        """The metric with only some units of a kind in the MLP's output, the others zero."""
        units = self.units[kind]
        return self.metrics(units.output(group, kept) for group in range(len(self.groups)))

    def at_last(self, kind: UnitKind) -> Float[Tensor, "template 100 unit"]:
        """Activations at the last position of every prompt."""
        units = self.units[kind]
        result = units.bias.new_zeros(self.n_templates, 100, units.n_units)
        for prompts, z, last in zip(self.groups, units.activations, self.last, strict=True):
            result[prompts.template, prompts.years.to(result.device)] = z[:, last]
        return result

    def ranking(self, kind: UnitKind) -> Int[Tensor, " unit"]:
        """Units by their variance over the years at the last position, the largest first.

        Variances within templates are averaged.
        """
        variance = self.at_last(kind).var(dim=1).mean(dim=0)
        return variance.argsort(descending=True, stable=True)


def _replace_by(output: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda _: output


def _output_map(model: LanguageModel, layer: int) -> tuple[Tensor, Tensor]:
    """What each neuron writes (d_mlp, d_model), and the bias (d_model).

    Raises:
        UserError: a norm stands between the neurons and the residual stream.
    """
    if hasattr(model.blocks[layer], "ln2_post"):
        raise UserError(
            "greater_than: expected neurons that write to the residual stream, found a norm after "
            f"the MLP of {model.cfg.architecture}; leave greater_than out of the scale file"
        )
    W_out = model.W_out[layer]
    b_out = getattr(model, "b_out", None)
    return W_out, W_out.new_zeros(W_out.shape[1]) if b_out is None else b_out[layer]


def _read(model: LanguageModel, layer: int, answers: Answers) -> dict[str, Tensor]:
    """What enters, leaves and lies within an MLP, at the positions of the tail."""
    names = {
        "mlp_in": mlp_input(model, layer),
        "mlp_out": mlp_output(layer),
        "neurons": f"blocks.{layer}.mlp.hook_post",
    }
    with captured(model, names.values(), answers.shape) as found:
        answers.next_logits(layer)
    return {what: found[name] for what, name in names.items()}
