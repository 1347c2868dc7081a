"""The tensors around the MLPs are the paper's, and replacing them does what it says."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, OPTConfig, OPTForCausalLM

from transcoders.config import Model, ModelFolder
from transcoders.errors import UserError
from transcoders.models import ARCHITECTURES, LanguageModel, fetch_model

LAYERS = [0, 1, 2]
# fp32 carries 6e-8 of relative rounding an operation; three layers of width 32 add up to about 1e-6
# of the largest entry. Any mistake in folding or centring is of the order of 1e-1.
ROUNDING = 1e-5


@pytest.fixture(scope="module")
def tokens(random_tokens: Callable[..., Tensor]) -> Tensor:
    return random_tokens(4, 16)


def untouched(folder: Path) -> Any:
    """The Hugging Face model as it is on disk."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def assert_close(found: Tensor, expected: Tensor, tolerance: float = ROUNDING) -> None:
    """Compare relative to the largest entry, the scale on which rounding errors of sums live."""
    error = (found - expected).abs().max() / expected.abs().max()
    assert found.shape == expected.shape
    assert error <= tolerance


@torch.inference_mode()
def test_activations_are_those_of_transformer_lens_in_compatibility_mode(
    tiny_model: LanguageModel, tiny_model_folder: Path, tokens: Tensor
) -> None:
    from transformer_lens.model_bridge import TransformerBridge

    bridge = TransformerBridge.boot_transformers(
        str(tiny_model_folder),
        hf_model=untouched(tiny_model_folder),
        tokenizer=AutoTokenizer.from_pretrained(tiny_model_folder),
        device="cpu",
        dtype=torch.float32,
    )
    bridge.enable_compatibility_mode(disable_warnings=True)
    _, cache = bridge.run_with_cache(tokens)
    for layer, (mlp_in, mlp_out) in tiny_model.mlp_activations(tokens, LAYERS).items():
        assert_close(mlp_in, cache[f"blocks.{layer}.ln2.hook_normalized"])
        assert_close(mlp_out, cache[f"blocks.{layer}.hook_mlp_out"])


def test_all_requested_layers_are_captured(tiny_model: LanguageModel, tokens: Tensor) -> None:
    captured = tiny_model.mlp_activations(tokens, [2, 0])
    assert set(captured) == {0, 2}
    assert captured[0].mlp_in.shape == captured[2].mlp_out.shape == (4, 16, 32)


@torch.inference_mode()
def test_mlp_maps_its_captured_input_to_its_captured_output(
    tiny_model: LanguageModel, tokens: Tensor
) -> None:
    for layer, (mlp_in, mlp_out) in tiny_model.mlp_activations(tokens, LAYERS).items():
        assert torch.equal(tiny_model.mlp(layer)(mlp_in), mlp_out)


@torch.inference_mode()
def test_rewriting_the_weights_keeps_the_logits(
    tiny_model: LanguageModel, tiny_model_folder: Path, tokens: Tensor
) -> None:
    assert_close(tiny_model.hf(tokens).logits, untouched(tiny_model_folder)(tokens).logits)


def test_mlp_input_is_normalised(tiny_model: LanguageModel, tokens: Tensor) -> None:
    for mlp_in, _ in tiny_model.mlp_activations(tokens, LAYERS).values():
        # The norm divides by sqrt(variance + epsilon): with epsilon 1e-5 and a variance of 0.04 or
        # more, the mean square falls short of 1 by up to 2.5e-4.
        assert (mlp_in.square().mean(dim=-1) - 1).abs().max() < 1e-3
        if tiny_model.hf.config.model_type != "llama":
            assert mlp_in.mean(dim=-1).abs().max() < ROUNDING


def test_mlp_output_is_centred_exactly_where_norms_centre(
    tiny_model: LanguageModel, tokens: Tensor
) -> None:
    for _, mlp_out in tiny_model.mlp_activations(tokens, LAYERS).values():
        off_centre = mlp_out.mean(dim=-1).abs().max() / mlp_out.abs().max()
        if tiny_model.hf.config.model_type == "llama":  # RMSNorm sees the mean, so it must stay
            assert off_centre > 0.01
        else:
            assert off_centre < ROUNDING


def test_activations_of_a_truncated_model_are_the_same_bits(
    tiny_model: LanguageModel, tiny_model_folder: Path, tokens: Tensor
) -> None:
    truncated = LanguageModel.load(tiny_model_folder, n_layers=2)
    assert len(truncated.blocks) == truncated.hf.config.num_hidden_layers == 2
    whole = tiny_model.mlp_activations(tokens, [0, 1])
    for layer, activations in truncated.mlp_activations(tokens, [0, 1]).items():
        assert all(map(torch.equal, activations, whole[layer]))


@pytest.mark.parametrize("layer", LAYERS)
def test_putting_back_the_own_output_returns_the_same_bits(
    tiny_model: LanguageModel, tokens: Tensor, layer: int
) -> None:
    site = tiny_model.run_through_site(tokens, layer)
    continued = tiny_model.continue_with_mlp_out(site, layer, site.activations.mlp_out)
    assert torch.equal(continued, site.logits)


@pytest.mark.parametrize("layer", LAYERS)
def test_a_site_pass_captures_what_mlp_activations_captures(
    tiny_model: LanguageModel, tokens: Tensor, layer: int
) -> None:
    site = tiny_model.run_through_site(tokens, layer)
    alone = tiny_model.mlp_activations(tokens, [layer])[layer]
    assert all(map(torch.equal, site.activations, alone))


@torch.inference_mode()
@pytest.mark.parametrize("layer", LAYERS)
def test_replacing_an_output_equals_a_hook_on_the_untouched_model(
    tiny_model: LanguageModel, tiny_model_folder: Path, tokens: Tensor, layer: int
) -> None:
    site = tiny_model.run_through_site(tokens, layer)
    own = site.activations.mlp_out
    # Mostly not zero-mean: what is put in need not be in the image of the centred MLP.
    replacement = own.roll(1, dims=1) + torch.linspace(-1, 2, own.shape[-1])

    hf = untouched(tiny_model_folder)
    block = hf.get_submodule(ARCHITECTURES[hf.config.model_type].blocks)[layer]
    block.mlp.register_forward_hook(lambda *_: replacement)
    expected = hf(tokens).logits

    assert (expected - site.logits).abs().max() > 0.1  # the replacement matters
    assert_close(tiny_model.continue_with_mlp_out(site, layer, replacement), expected)


def test_capturing_leaves_no_hook_behind(tiny_model: LanguageModel, tokens: Tensor) -> None:
    tiny_model.run_through_site(tokens, 1)
    tiny_model.mlp_activations(tokens, [1])
    with pytest.raises(IndexError):  # an id beyond the vocabulary: the pass itself fails
        tiny_model.mlp_activations(torch.full((1, 4), 10_000), [1])
    modules: list[nn.Module] = [tiny_model.mlp(1), tiny_model.blocks[1]]
    assert not any(module._forward_hooks for module in modules)


@pytest.fixture(scope="module")
def unsupported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("opt")
    sizes = {"hidden_size": 8, "ffn_dim": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = OPTConfig(vocab_size=16, max_position_embeddings=16, word_embed_proj_dim=8, **sizes)
    OPTForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("n_layers", [None, 1])
def test_unsupported_model_type_is_named(unsupported: Path, n_layers: int | None) -> None:
    with pytest.raises(UserError, match="'opt' is not supported"):
        LanguageModel.load(unsupported, n_layers=n_layers)


def remove_everything(folder: Path) -> None:
    shutil.rmtree(folder)


def garble_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def remove_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def truncate_weights(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


def remove_a_tensor(folder: Path) -> None:
    # transformers fills in random numbers for it, with no more than a warning.
    tensors = load_file(folder / "model.safetensors")
    del tensors["transformer.h.1.mlp.c_fc.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


DAMAGES = [remove_everything, garble_config, remove_weights, truncate_weights, remove_a_tensor]


@pytest.fixture(params=DAMAGES, ids=lambda damage: damage.__name__)
def damaged(request: pytest.FixtureRequest, tiny_models: dict[str, Path], tmp_path: Path) -> Path:
    folder = tmp_path / "damaged"
    shutil.copytree(tiny_models["gpt2"], folder)
    request.param(folder)
    return folder


def test_missing_or_damaged_model_folder_is_named_at_loading(damaged: Path) -> None:
    with pytest.raises(UserError, match=str(damaged)):
        LanguageModel.load(damaged)


def test_missing_or_damaged_model_folder_is_named_at_fetching(
    damaged: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=str(damaged)):
        fetch_model(model_in(damaged), tmp_path / "fetched", seed=0)
    assert not (tmp_path / "fetched").exists()


def model_in(folder: Path) -> Model:
    source = ModelFolder(type="files", path=str(folder), license="none")
    return Model(source=source, n_layers=3, d_model=32, bos_token="<|endoftext|>")


def test_fetching_from_files_copies_the_weights_exactly(
    tiny_model_folder: Path, tmp_path: Path
) -> None:
    fetch_model(model_in(tiny_model_folder), tmp_path / "copy", seed=0)
    original = load_file(tiny_model_folder / "model.safetensors")
    copied = load_file(tmp_path / "copy/model.safetensors")
    assert original.keys() == copied.keys()
    assert all(torch.equal(original[name], copied[name]) for name in original)


@pytest.mark.parametrize("wrong", [{"n_layers": 4}, {"d_model": 48}, {"bos_token": "<bos>"}])
def test_fetching_another_model_than_the_scale_says_leaves_nothing_behind(
    tiny_models: dict[str, Path], tmp_path: Path, wrong: dict[str, Any]
) -> None:
    model = model_in(tiny_models["llama"]).model_copy(update=wrong)
    with pytest.raises(UserError, match=next(iter(wrong))):
        fetch_model(model, tmp_path / "fetched", seed=0)
    assert list(tmp_path.iterdir()) == []
