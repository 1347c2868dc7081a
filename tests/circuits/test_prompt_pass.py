"""What one prompt fixes is what the model computes, and computing it leaves no trace."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers_circuits import assert_close, centred, divisor, hooks_of_ours, prompt
from transcoders.config import Model, SyntheticModel
from transcoders.models import LanguageModel, fetch_model
from transcoders.models.attention import attention_weights
from transcoders.models.prompt import PromptPass, run_prompt


@pytest.fixture(scope="module")
def tokens(random_tokens: Callable[..., Tensor]) -> Tensor:
    return prompt(random_tokens)


@pytest.fixture(scope="module")
def passed(tiny_model: LanguageModel, tokens: Tensor) -> PromptPass:
    return run_prompt(tiny_model, tokens)


@torch.no_grad()
def attention_outputs(model: LanguageModel, tokens: Tensor) -> list[Tensor]:
    """What every attention module gives back."""
    kept: list[Tensor] = []

    def keep(_: Any, __: Any, output: Any) -> None:
        kept.append(output[0][0])

    modules = [block.get_submodule(model.architecture.attention) for block in model.blocks]
    hooks = [module.register_forward_hook(keep) for module in modules]
    model.hf(tokens[None], use_cache=False)
    for hook in hooks:
        hook.remove()
    return kept


def assert_attention_is_rebuilt(model: LanguageModel, passed: PromptPass) -> None:
    """Compare patterns, values and output maps with what attention modules give."""
    real = attention_outputs(model, passed.tokens)
    for layer, block in enumerate(model.blocks):
        norm = block.get_submodule(model.architecture.norm_before_attention)
        read = (
            centred(norm, passed.before_attention[layer]) / passed.attention_scale[layer, :, None]
        )
        weights = attention_weights(model, layer)
        values = torch.einsum("sd,hde->hse", read, weights.W_V)
        moved = torch.einsum("hts,hse,hed->td", passed.patterns[layer], values, weights.W_O)
        assert_close(moved + weights.bias, real[layer])
        biased = torch.einsum(
            "hts,hse,hed->td", passed.patterns[layer], values + weights.b_V[:, None], weights.W_O
        )
        assert_close(biased + weights.b_O, real[layer])


def test_patterns_values_and_output_maps_rebuild_attention(
    tiny_model: LanguageModel, passed: PromptPass
) -> None:
    assert_attention_is_rebuilt(tiny_model, passed)


def test_each_group_of_heads_has_the_values_it_shares(tmp_path: Path, tokens: Tensor) -> None:
    model = Model(  # four heads, two values
        source=SyntheticModel(type="synthetic", architecture="llama", license="none"),
        n_layers=1,
        d_model=64,
        bos_token="<|endoftext|>",
    )
    fetch_model(model, tmp_path / "model", seed=0)
    grouped = LanguageModel.load(tmp_path / "model")
    weights = attention_weights(grouped, 0)
    assert torch.equal(weights.W_V[0], weights.W_V[1])
    assert not torch.equal(weights.W_V[1], weights.W_V[2])
    assert_attention_is_rebuilt(grouped, run_prompt(grouped, tokens))


def test_heads_that_share_values_have_copies_of_them(tiny_model: LanguageModel) -> None:
    weights = attention_weights(tiny_model, 1)
    is_shared = torch.equal(weights.W_V[0], weights.W_V[1])
    assert is_shared == (tiny_model.hf.config.model_type == "llama")
    assert not torch.equal(weights.W_O[0], weights.W_O[1])


def test_patterns_are_causal_and_their_rows_sum_to_1(passed: PromptPass) -> None:
    assert_close(passed.patterns.sum(dim=-1), torch.ones(3, 2, 8))
    assert not passed.patterns.triu(1).any()


def test_residual_streams_grow_by_what_attention_and_mlps_write(
    tiny_model: LanguageModel, tokens: Tensor, passed: PromptPass
) -> None:
    attention = torch.stack(attention_outputs(tiny_model, tokens))
    is_parallel = tiny_model.hf.config.model_type == "gpt_neox"
    after = torch.cat([passed.before_attention[1:], passed.after[None]])
    assert_close(passed.before_attention + attention + passed.mlp.mlp_out, after)
    written_before_mlp = 0 if is_parallel else attention
    assert_close(passed.before_attention + written_before_mlp, passed.before_mlp)


def test_scales_are_what_the_norms_divide_by(tiny_model: LanguageModel, passed: PromptPass) -> None:
    architecture = tiny_model.architecture
    for layer, block in enumerate(tiny_model.blocks):
        for name, residual, scale in (
            (architecture.norm_before_attention, passed.before_attention, passed.attention_scale),
            (architecture.norm_before_mlp, passed.before_mlp, passed.mlp_scale),
        ):
            assert_close(scale[layer], divisor(block.get_submodule(name), residual[layer]))
    final_norm = tiny_model.hf.get_submodule(architecture.final_norm)
    assert_close(passed.final_scale, divisor(final_norm, passed.after))


@torch.no_grad()
def test_mlps_read_the_normalised_residual_and_give_what_is_kept(
    tiny_model: LanguageModel, tokens: Tensor, passed: PromptPass
) -> None:
    captured = tiny_model.mlp_activations(tokens[None], [0, 1, 2])
    for layer, block in enumerate(tiny_model.blocks):
        norm = block.get_submodule(tiny_model.architecture.norm_before_mlp)
        read = centred(norm, passed.before_mlp[layer]) / passed.mlp_scale[layer, :, None]
        assert_close(read, passed.mlp.mlp_in[layer])
        assert_close(tiny_model.mlp(layer)(passed.mlp.mlp_in[layer]), passed.mlp.mlp_out[layer])
        assert_close(passed.mlp.mlp_in[layer], captured[layer].mlp_in[0])


@torch.no_grad()
def test_logits_are_the_models_own(
    tiny_model: LanguageModel, tokens: Tensor, passed: PromptPass
) -> None:
    assert_close(passed.logits, tiny_model.hf(tokens[None]).logits[0])
    assert torch.equal(passed.tokens, tokens)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_the_attention_implementation_is_restored_and_no_hook_stays(
    tiny_model: LanguageModel, tokens: Tensor, implementation: str
) -> None:
    before = tiny_model.hf.config._attn_implementation
    tiny_model.hf.set_attn_implementation(implementation)
    try:
        run_prompt(tiny_model, tokens)
        with pytest.raises(IndexError):  # an id beyond the vocabulary: the pass itself fails
            run_prompt(tiny_model, torch.full((4,), 10_000))
        assert tiny_model.hf.config._attn_implementation == implementation
        assert hooks_of_ours(tiny_model) == []
    finally:
        tiny_model.hf.set_attn_implementation(before)


def test_a_single_token_can_be_run(tiny_model: LanguageModel) -> None:
    passed = run_prompt(tiny_model, torch.tensor([0]))
    assert passed.patterns.shape == (3, 2, 1, 1)
    assert_close(passed.logits, tiny_model.hf(torch.tensor([[0]])).logits[0])
