"""The units that the output of the chosen MLP is made of: transcoder or SAE features, or neurons.

Each kind writes the MLP's output as a sum over units plus a constant. So the same question can be
asked of all kinds: how much of the task do a few units carry, with the others set to zero (Figure
4)? The constant stays: ``b_dec`` of a dictionary, the output bias of an MLP.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from transcoders.dictionaries import SparseDictionary
from transcoders.errors import UserError
from transcoders.greater_than.answers import Answers
from transcoders.greater_than.estimates import Curve
from transcoders.greater_than.task import Numbers, Prompts, metric
from transcoders.models import LanguageModel, captured, interventions, mlp_input, mlp_output
from transcoders.progress import progress_bar


@dataclass(frozen=True)
class Units:
    """The units of one kind on all prompts."""

    activations: list[Float[Tensor, "prompt position unit"]]
    """For each group of prompts, at the positions of the tail and then of the alternatives."""
    W_dec: Float[Tensor, "unit d_model"]
    """What each unit writes."""
    bias: Float[Tensor, " d_model"]
    """The constant."""

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
    """The prompts, run up to one MLP and ready to go on with another output in its place.

    Attributes:
        units: by kind: ``transcoder``, ``mlp_out_sae`` if there is one, and ``neurons``.
    """

    @torch.no_grad()
    def __init__(
        self,
        model: LanguageModel,
        numbers: Numbers,
        groups: Sequence[Prompts],
        layer: int,
        dictionaries: dict[str, SparseDictionary],
        *,
        first_position: int | None,
    ) -> None:
        """Run the prompts.

        Args:
            model: the language model.
            numbers: how its tokenizer writes years.
            groups: the prompts.
            layer: of the MLP.
            dictionaries: the transcoder, and the SAE on the output if there is one.
            first_position: the output is changed from this position on. None: only at the positions
                that predict a digit.
        """
        self.model, self.numbers, self.layer, self.groups = model, numbers, layer, groups
        self.n_templates = 1 + max(prompts.template for prompts in groups)
        self._answers: list[Answers] = []
        reads = {"mlp_in": mlp_input(model, layer), "mlp_out": mlp_output(layer)}
        neurons, seen = f"blocks.{layer}.mlp.hook_post", []
        for prompts in groups:
            tail = 1 if first_position is None else prompts.rows.shape[1] - first_position
            answers = Answers(model, numbers, prompts, tail=tail)
            with captured(model, [*reads.values(), neurons], answers.shape) as found:
                answers.probabilities(layer)
            self._answers.append(answers)
            seen.append(found)
        self.units: dict[str, Units] = {}
        for kind, dictionary in dictionaries.items():
            z = [dictionary.encode(found[reads[dictionary.traits.reads]]) for found in seen]
            self.units[kind] = Units(z, dictionary.W_dec, dictionary.b_dec)
        of_neurons = [found[neurons] for found in seen]
        self.units["neurons"] = Units(of_neurons, *_output_map(model, layer))

    @torch.no_grad()
    def metrics(
        self, kind: str = "neurons", kept: Int[Tensor, " kept"] | None = None
    ) -> Float[Tensor, "template 100"]:
        """The metric of every prompt, with only some units of a kind in the MLP's output.

        Args:
            kind: of units.
            kept: numbers of units; the others are zero. None leaves the MLP as it is.
        """
        result = torch.full((self.n_templates, 100), torch.nan)
        for group, (prompts, answers) in enumerate(zip(self.groups, self._answers, strict=True)):
            changes = {}
            if kept is not None:
                output = self.units[kind].output(group, kept)
                changes = {mlp_output(self.layer): lambda _, output=output: output}
            with interventions(self.model, changes, answers.shape):
                p = answers.probabilities(self.layer)
            result[prompts.template, prompts.years] = metric(p, prompts.years)
        return result

    def at_last(self, kind: str) -> Float[Tensor, "template 100 unit"]:
        """Activations at the last position of every prompt."""
        units = self.units[kind]
        result = units.bias.new_zeros(self.n_templates, 100, units.n_units)
        for prompts, z, answers in zip(self.groups, units.activations, self._answers, strict=True):
            result[prompts.template, prompts.years.to(result.device)] = z[:, answers.tail - 1]
        return result

    def variance(self, kind: str) -> Float[Tensor, " unit"]:
        """Variance over the years at the last position, averaged over templates."""
        return self.at_last(kind).var(dim=1).mean(dim=0)

    def ranking(self, kind: str) -> Int[Tensor, " unit"]:
        """Units by their variance, the largest first."""
        return self.variance(kind).argsort(descending=True, stable=True)

    def curve(self, kind: str, kept: Iterable[int], *, without: int | None = None) -> Curve:
        """The metric with the first units of a ranking kept.

        Args:
            kind: of units.
            kept: numbers of units to keep, ascending.
            without: a unit that is never kept.
        """
        ranking, numbers = self.ranking(kind), list(kept)
        if without is not None:
            ranking = ranking[ranking != without]
        curve = {}
        with progress_bar(len(numbers), f"keeping {kind}", "points") as bar:
            for n_kept in numbers:
                curve[n_kept] = self.metrics(kind, ranking[:n_kept])
                bar.update(1)
        return curve


def check_task(model: LanguageModel) -> None:
    """Refuse a model on which the task cannot be studied, before anything is trained for it.

    Raises:
        UserError: its tokenizer has no tokens for numbers, or a norm follows its MLPs.
    """
    Numbers.of(model.tokenizer)
    _output_map(model, 0)


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
    W_out, b_out = model.W_out[layer], getattr(model, "b_out", None)
    return W_out, W_out.new_zeros(W_out.shape[1]) if b_out is None else b_out[layer]
