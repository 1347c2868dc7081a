"""What a model answers, with a cache, a mask and a tail, is what it answers without any of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers_circuits import centred, plain
from helpers_greater_than import (
    TRAP_TEMPLATES,
    Setting,
    handed_over,
    hooked,
    only,
    plain_model,
    probabilities_by_hand,
    prompts_of,
    trap_tokenizer,
)
from transcoders.greater_than.answers import Answers
from transcoders.greater_than.task import Numbers, make_prompts, metric
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


def test_prompts_differ_in_what_is_answered(expected: Tensor) -> None:
    # Without which the comparisons below would show little.
    assert expected.std(dim=0).max() > 0.01
    assert expected.max() > 0.03


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


def test_the_residual_stream_is_that_of_the_tail_and_the_alternatives(
    any_setting: Setting,
) -> None:
    prompts = only(any_setting.prompts[0], SOME_YEARS)
    norm = plain(any_setting.model).final_norm
    for tail in (1, 3, prompts.rows.shape[1]):
        answers = answers_of(any_setting, tail=tail)
        length = tail + any_setting.numbers.n_alternatives
        assert [tuple(each.shape) for each in answers.residual] == [(13, length, 32)] * 3
        with torch.no_grad():
            whole = any_setting.hf(
                input_ids=prompts.rows, use_cache=False, output_hidden_states=True
            ).hidden_states
        for found, before in zip(answers.residual, whole, strict=False):
            # But for its mean, which no LayerNorm reads.
            assert_same(found[:, :tail], centred(norm, before[:, -tail:]), 1e-4)


def test_probabilities_of_all_continuations_sum_to_one(any_setting: Setting) -> None:
    p = answers_of(any_setting).probabilities(0)
    assert p.shape == (13, 100)
    assert (p > 0).all()
    assert_same(p.sum(dim=1), torch.ones(13))


def test_the_next_token_alone_is_the_first_factor(any_setting: Setting, expected: Tensor) -> None:
    answers = answers_of(any_setting, next_only=True)
    n_numbers = len(any_setting.numbers.ids)
    factor = expected if n_numbers == 100 else expected.unflatten(1, (10, 10)).sum(dim=2)
    for found in (answers, answers_of(any_setting)):
        for first_layer in range(3):
            assert_same(found.next_probabilities(first_layer), factor)
    assert answers.next_logits(0).shape == (13, 1, n_numbers)


def test_logits_are_the_models_own(any_setting: Setting) -> None:
    rows = only(any_setting.prompts[0], SOME_YEARS).rows
    with torch.no_grad():
        logits = any_setting.hf(input_ids=rows, use_cache=False).logits[:, -1]
    assert_same(
        answers_of(any_setting).next_logits(1)[:, 0], logits[:, any_setting.numbers.ids], 1e-4
    )


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


def test_a_hook_after_a_prefix_does_not_reach_the_prefix(any_setting: Setting) -> None:
    prompts = only(any_setting.prompts[0], SOME_YEARS)
    n_prefix = prompts.rows.shape[1] - 2
    answers = answers_of(any_setting, tail=2)

    def from_there_on(output: Tensor) -> Tensor:
        return torch.cat([output[:, :n_prefix], shifted(output)[:, n_prefix:]], dim=1)

    for layer in (0, 1):
        with interventions(any_setting.model, {mlp_output(layer): shifted}, answers.shape):
            found = answers.probabilities(layer)
        with hooked(plain_hook(any_setting, layer, from_there_on)):
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


def test_prompts_do_not_see_each_other(any_setting: Setting) -> None:
    prompts = any_setting.prompts[0]
    together = Answers(any_setting.model, any_setting.numbers, prompts).probabilities(0)
    for year in (0, 57):
        [alone] = Answers(
            any_setting.model, any_setting.numbers, only(prompts, [year])
        ).probabilities(0)
        assert_same(alone, together[year])


def test_a_group_of_a_single_shorter_prompt_is_answered(settings: dict[str, Setting]) -> None:
    setting, tokenizer = settings["gpt2"], trap_tokenizer()
    numbers = Numbers.of(tokenizer)
    groups = make_prompts(TRAP_TEMPLATES, tokenizer, 0)
    assert [len(group.years) for group in groups] == [1, 99, 1, 99]
    for group in groups:
        found = Answers(setting.model, numbers, group).probabilities(0)
        assert_same(found, probabilities_by_hand(setting.hf, numbers, group.rows))


@torch.no_grad()
def context_model(folder: Path) -> Any:
    """A tiny GPT-2 in which the next token depends on the last one and its position alone."""
    hf = plain_model(folder)
    for block in hf.transformer.h:
        for output in (block.attn.c_proj, block.mlp.c_proj):
            output.weight.zero_()
            output.bias.zero_()
    return hf


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_pairs_and_digits_agree_on_a_model_that_gives_both_the_same_probabilities(
    tiny_models: dict[str, Path], seed: int
) -> None:
    """Unembeddings are solved for, so that p(pair | 17) is p(tens | 17) p(units | tens)."""
    pairs, [prompts, _] = prompts_of(tiny_models["gpt2"])
    prompts = only(prompts, range(0, 100, 7))
    digits = Numbers(torch.arange(10) + 20)  # ten words
    hf = context_model(tiny_models["gpt2"])
    generator = torch.Generator().manual_seed(seed)
    wanted = torch.randn(11, 10, generator=generator) * 2  # after 17, and after 0 to 9
    p = wanted.double().softmax(dim=1)
    expected = (p[0, :, None] * p[1:]).flatten()
    n_prompt = prompts.rows.shape[1]
    body = hf.transformer
    with torch.no_grad():
        at_end = body.wte(prompts.rows[:1, -1]) + body.wpe.weight[n_prompt - 1]
        after = body.wte(digits.ids) + body.wpe.weight[n_prompt]
        read = body.ln_f(torch.cat([at_end, after]))
    unembedding = torch.zeros(len(body.wte.weight), 32)
    unembedding[digits.ids] = (torch.linalg.pinv(read) @ wanted).T
    unembedding[pairs.ids] = (torch.linalg.pinv(read[:1]) @ expected.float().log()[None]).T
    model = handed_over(hf, tiny_models["gpt2"], unembedding)
    by_digits = Answers(model, digits, prompts).probabilities(0)
    in_pairs = Answers(model, pairs, prompts).probabilities(0)
    assert_same(by_digits, expected.float().expand(len(prompts.years), -1))
    assert_same(in_pairs, by_digits)
    found = metric(by_digits, prompts.years)
    assert_same(metric(in_pairs, prompts.years), found)
    assert found.std() > 0.1
