"""What a model answers, with a cache, a mask and a tail, is what it answers without any of them."""

import pytest
import torch

from helpers_greater_than import only, probabilities_by_hand
from transcoders.greater_than.answers import Answers
from transcoders.greater_than.task import Numbers
from transcoders.models import interventions, mlp_output

# Probabilities of at most 1, in fp32 and in another order of summation.
ROUNDING = 1e-5
SOME_YEARS = range(3, 100, 8)


def assert_same(found, expected, tolerance=ROUNDING):
    assert found.shape == expected.shape
    assert (found - expected).abs().max().item() <= tolerance


@pytest.fixture(scope="session")
def expected(any_setting):
    """Of some prompts, from the model as it is on disk."""
    rows = only(any_setting.prompts[0], SOME_YEARS).rows
    return probabilities_by_hand(any_setting.hf, any_setting.numbers, rows)


def answers_of(setting, **options):
    """To the same prompts."""
    prompts = only(setting.prompts[0], SOME_YEARS)
    return Answers(setting.model, setting.numbers, prompts, **options)


def test_from_every_tail_and_layer_probabilities_are_those_of_the_plain_model(
    any_setting, expected
):
    for tail in range(1, any_setting.prompts[0].rows.shape[1] + 1):
        answers = answers_of(any_setting, tail=tail)
        for first_layer in (2, 0, 1, 0):
            assert_same(answers.probabilities(first_layer), expected)


def test_other_families_and_their_hooks_answer_as_the_plain_model(other_setting):
    setting, module = other_setting, adds_mlp_output(other_setting, 1)
    prompts = only(setting.prompts[0], SOME_YEARS)
    n_prompt = prompts.rows.shape[1]
    for numbers in (Numbers(torch.arange(20, 120)), Numbers(torch.arange(20, 30))):
        expected = probabilities_by_hand(setting.hf, numbers, prompts.rows)
        assert expected.std(dim=0).max() > 0.01
        with module.register_forward_hook(lambda _, __, output: shifted(output)):
            changed = probabilities_by_hand(setting.hf, numbers, prompts.rows)
        assert (changed - expected).abs().max() > 0.01
        for tail in (1, 4, n_prompt):
            answers = Answers(setting.model, numbers, prompts, tail=tail)
            for first_layer in (2, 0, 1):
                assert_same(answers.probabilities(first_layer), expected)
        with interventions(setting.model, {mlp_output(1): shifted}, answers.shape):
            assert_same(answers.probabilities(1), changed)


def adds_mlp_output(setting, layer):
    """The plain model's module whose output is what an MLP adds to the residual stream."""
    match setting.architecture:
        case "opt":
            return setting.hf.model.decoder.layers[layer].fc2
        case "gemma2":
            return setting.hf.model.layers[layer].post_feedforward_layernorm
    return setting.hf.model.layers[layer].mlp


def test_the_next_token_alone_is_the_first_factor(any_setting, expected):
    answers = answers_of(any_setting, next_only=True)
    is_pair = any_setting.numbers.style == "pairs"
    factor = expected if is_pair else expected.unflatten(1, (10, 10)).sum(dim=2)
    for first_layer in range(3):
        assert_same(answers.probabilities(first_layer), factor)


def shifted(output):
    return output + torch.linspace(-1, 1, output.shape[-1])
