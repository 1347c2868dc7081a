"""What a model answers, with a cache, a mask and a tail, is what it answers without any of them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers_greater_than import (
    Setting,
    hooked,
    only,
    probabilities_by_hand,
)
from transcoders.greater_than.answers import Answers
from transcoders.greater_than.task import Numbers
from transcoders.models import interventions, mlp_output

# Probabilities of at most 1, in fp32 and in another order of summation.
ROUNDING = 1e-5
SOME_YEARS = range(3, 100, 8)


def assert_same(found: Tensor, expected: Tensor, tolerance: float = ROUNDING) -> None:
    assert found.shape == expected.shape
    assert (found - expected).abs().max().item() <= tolerance


@pytest.fixture(scope="session")
def expected(any_setting: Setting) -> Tensor:
    """Of some prompts, from the model as it is on disk."""
    rows = only(any_setting.prompts[0], SOME_YEARS).rows
    return probabilities_by_hand(any_setting.hf, any_setting.numbers, rows)


def answers_of(setting: Setting, **options: Any) -> Answers:
    """To the same prompts."""
    prompts = only(setting.prompts[0], SOME_YEARS)
    return Answers(setting.model, setting.numbers, prompts, **options)


def test_for_every_tail_probabilities_are_those_of_the_plain_model(
    any_setting: Setting, expected: Tensor
) -> None:
    for tail in range(1, any_setting.prompts[0].rows.shape[1] + 1):
        assert_same(answers_of(any_setting, tail=tail).probabilities(0), expected)


def test_from_every_layer_on_the_same_comes_out(any_setting: Setting, expected: Tensor) -> None:
    for tail in (1, 4):
        answers = answers_of(any_setting, tail=tail)
        for first_layer in (2, 0, 1, 2, 0):
            assert_same(answers.probabilities(first_layer), expected)


def test_other_families_and_their_hooks_answer_as_the_plain_model(other_setting: Setting) -> None:
    setting, module = other_setting, adds_mlp_output(other_setting, 1)
    prompts = only(setting.prompts[0], SOME_YEARS)
    n_prompt = prompts.rows.shape[1]
    for numbers in (Numbers(torch.arange(20, 120)), Numbers(torch.arange(20, 30))):
        expected = probabilities_by_hand(setting.hf, numbers, prompts.rows)
        assert expected.std(dim=0).max() > 0.01
        with hooked(module.register_forward_hook(lambda _, __, output: shifted(output))):
            changed = probabilities_by_hand(setting.hf, numbers, prompts.rows)
        assert (changed - expected).abs().max() > 0.01
        for tail in (1, 4, n_prompt):
            answers = Answers(setting.model, numbers, prompts, tail=tail)
            for first_layer in (2, 0, 1):
                assert_same(answers.probabilities(first_layer), expected)
        with interventions(setting.model, {mlp_output(1): shifted}, answers.shape):
            assert_same(answers.probabilities(1), changed)


def adds_mlp_output(setting: Setting, layer: int) -> Any:
    """The plain model's module whose output is what an MLP adds to the residual stream."""
    match setting.architecture:
        case "opt":
            return setting.hf.model.decoder.layers[layer].fc2
        case "gemma2":
            return setting.hf.model.layers[layer].post_feedforward_layernorm
    return setting.hf.model.layers[layer].mlp


def test_the_next_token_alone_is_the_first_factor(any_setting: Setting, expected: Tensor) -> None:
    answers = answers_of(any_setting, next_only=True)
    n_numbers = len(any_setting.numbers.ids)
    factor = expected if n_numbers == 100 else expected.unflatten(1, (10, 10)).sum(dim=2)
    for found in (answers, answers_of(any_setting)):
        for first_layer in range(3):
            assert_same(found.next_probabilities(first_layer), factor)
    assert answers.next_logits(0).shape == (13, 1, n_numbers)


def shifted(output: Tensor) -> Tensor:
    return output + torch.linspace(-1, 1, output.shape[-1])


def plain_hook(setting: Setting, layer: int, change: Callable[[Tensor], Tensor]) -> Any:
    """The same change of what an MLP of the plain model gives."""
    return setting.mlps[layer].register_forward_hook(lambda _, __, output: change(output))


def test_a_hook_changes_the_answer_and_leaves_no_trace(any_setting: Setting) -> None:
    answers = answers_of(any_setting, tail=3)
    before = answers.probabilities(0)
    for layer in (0, 1, 2):
        with interventions(any_setting.model, {mlp_output(layer): shifted}, answers.shape):
            changed = answers.probabilities(layer)
            assert_same(answers.probabilities(0), changed)  # layers before are not concerned
        assert (changed - before).abs().max() > 0.01
        assert torch.equal(answers.probabilities(0), before)
        assert_same(answers.probabilities(2), before)


def test_a_hook_acts_as_in_the_whole_model_with_the_whole_prompt_in_the_tail(
    any_setting: Setting,
) -> None:
    prompts = only(any_setting.prompts[0], SOME_YEARS)
    answers = answers_of(any_setting, tail=prompts.rows.shape[1])
    for layer in (0, 1, 2):
        with interventions(any_setting.model, {mlp_output(layer): shifted}, answers.shape):
            found = answers.probabilities(layer)
        with hooked(plain_hook(any_setting, layer, shifted)):
            p = probabilities_by_hand(any_setting.hf, any_setting.numbers, prompts.rows)
        assert_same(found, p)


@pytest.mark.parametrize("architecture", ["gpt2", "gpt_neox", "llama"])
def test_alternatives_do_not_see_each_other(
    settings: dict[str, Setting], architecture: str
) -> None:
    setting = settings[architecture]
    prompts = only(setting.prompts[0], SOME_YEARS)
    ids = torch.arange(20, 30)
    before = Answers(setting.model, Numbers(ids), prompts, tail=2).next_logits(0)
    for changed in (0, 4, 9):
        others = [number for number in range(10) if number != changed]
        elsewhere = ids.clone()
        elsewhere[changed] = 77
        after = Answers(setting.model, Numbers(elsewhere), prompts, tail=2).next_logits(0)
        read = [0, *(1 + number for number in others)]  # the prompt, and the other alternatives
        assert_same(after[:, read][:, :, others], before[:, read][:, :, others])
        moved = after[:, 1 + changed, others] - before[:, 1 + changed, others]
        assert moved.abs().max() > 0.1
