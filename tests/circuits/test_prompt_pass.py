"""What one prompt fixes is what a plain Hugging Face model gives, and fixing it leaves no trace."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from helpers_circuits import (
    PlainPass,
    assert_close,
    centred,
    divisor,
    hooks_of_ours,
    plain,
    plain_pass,
    prompt,
    without_weight,
)
from transcoders.models import LanguageModel
from transcoders.models.passes import PromptPass, run_prompt


@pytest.fixture(scope="module")
def tokens(random_tokens: Callable[..., Tensor]) -> Tensor:
    return prompt(random_tokens)


@pytest.fixture(scope="module")
def passed(tiny_model: LanguageModel, tokens: Tensor) -> PromptPass:
    return run_prompt(tiny_model, tokens)


@pytest.fixture(scope="module")
def expected(tiny_model: LanguageModel, tokens: Tensor) -> PlainPass:
    return plain_pass(tiny_model, tokens)


def test_every_tensor_is_the_plain_models(
    tiny_model: LanguageModel, tokens: Tensor, passed: PromptPass, expected: PlainPass
) -> None:
    _, blocks, final_norm = plain(tiny_model)
    for layer, block in enumerate(blocks):
        before, before_mlp = expected.before_attention[layer], expected.before_mlp[layer]
        assert_close(passed.before_attention[layer], centred(block.norm_1, before))
        assert_close(passed.before_mlp[layer], centred(block.norm_2, before_mlp))
        assert_close(passed.attention_scale[layer], divisor(block.norm_1, before))
        assert_close(passed.mlp_scale[layer], divisor(block.norm_2, before_mlp))
        assert_close(passed.patterns[layer], expected.patterns[layer])
        attention_out = centred(block.norm_1, expected.attention_out[layer])
        assert_close(passed.attention_out[layer], attention_out)
        assert_close(passed.mlp.mlp_in[layer], without_weight(block.norm_2, before_mlp))
        assert_close(passed.mlp.mlp_out[layer], centred(block.norm_2, expected.mlp_out[layer]))
    assert_close(passed.after, centred(final_norm, expected.after))
    assert_close(passed.final_scale, divisor(final_norm, expected.after))
    assert_close(passed.logits, expected.logits)
    assert torch.equal(passed.tokens, tokens)
    # None of these models has a norm after attention.
    assert torch.equal(passed.attention, passed.patterns)


def test_no_hook_stays_even_if_the_pass_fails(tiny_model: LanguageModel, tokens: Tensor) -> None:
    run_prompt(tiny_model, tokens)
    with pytest.raises(IndexError):  # an id beyond the vocabulary
        run_prompt(tiny_model, torch.full((4,), 10_000))
    assert hooks_of_ours(tiny_model) == []
