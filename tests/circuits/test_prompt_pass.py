"""What one prompt fixes is what a plain Hugging Face model gives."""

import torch

from helpers_circuits import (
    assert_close,
    centred,
    divisor,
    hooks_of_ours,
    plain,
    plain_pass,
    prompt,
    without_weight,
)
from transcoders.models import logits_after
from transcoders.models.passes import run_prompt


def test_every_tensor_is_the_plain_models(tiny_model, random_tokens):
    tokens = prompt(random_tokens)
    passed, expected = run_prompt(tiny_model, tokens), plain_pass(tiny_model, tokens)
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
    logits = [logits_after(tiny_model, passed, token) for token in range(len(tokens))]
    assert_close(torch.stack(logits), expected.logits)
    assert torch.equal(passed.tokens, tokens)
    # None of these models has a norm after attention.
    assert all(torch.equal(passed.attention(at), passed.patterns[at]) for at in range(len(blocks)))
    assert hooks_of_ours(tiny_model) == []
