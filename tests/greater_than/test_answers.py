"""What a model answers, with a cache, a mask and a tail, is what it answers without any of them."""

import torch

from helpers_greater_than import only, probabilities_by_hand
from transcoders.greater_than.answers import Answers
from transcoders.greater_than.task import Numbers
from transcoders.models import interventions, mlp_output

SOME_YEARS = range(3, 100, 8)


def assert_same(found, expected):
    """Probabilities of at most 1, in fp32 and in another order of summation."""
    assert found.shape == expected.shape
    assert (found - expected).abs().max().item() <= 1e-5


def test_from_every_tail_and_layer_probabilities_are_those_of_the_plain_model(any_setting):
    setting, prompts = any_setting, only(any_setting.prompts[0], SOME_YEARS)
    expected = probabilities_by_hand(setting.hf, setting.numbers, prompts.rows)
    for tail in range(1, prompts.rows.shape[1] + 1):
        answers = Answers(setting.model, setting.numbers, prompts, tail=tail)
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
    if setting.hf.config.model_type == "opt":
        return setting.hf.model.decoder.layers[layer].fc2
    block = setting.hf.model.layers[layer]
    return getattr(block, "post_feedforward_layernorm", block.mlp)


def shifted(output):
    return output + torch.linspace(-1, 1, output.shape[-1])
