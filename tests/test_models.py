"""The tensors around the MLPs are the paper's, and replacing them does what it says.

Everything is compared with the Hugging Face model as it is on disk, run without TransformerLens.
"""

import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from helpers_circuits import assert_close
from helpers_damage import EVERY_DAMAGE
from helpers_models import FAMILIES, make_tiny_model
from transcoders.errors import UserError
from transcoders.models import (
    Predictions,
    continue_with_mlp_out,
    interventions,
    load_model,
    load_tokenizer,
    mlp_activations,
    mlp_input,
    mlp_out_for,
    predictions,
    run_blocks,
    run_through_site,
    unembed,
)
from transcoders.models.support import probe

# Where the plain model keeps its blocks, its MLP's last map, and the norm after that, if any.
BLOCKS = {"gpt2": "transformer.h", "gpt_neox": "gpt_neox.layers", "opt": "model.decoder.layers"}
OUTPUT = {
    "gpt2": "mlp.c_proj", "gpt_neox": "mlp.dense_4h_to_h", "opt": "fc2", "phi": "mlp.fc2",
    "gemma2": "post_feedforward_layernorm", "gemma3_text": "post_feedforward_layernorm",
}  # fmt: skip
OUTER = pytest.mark.parametrize("layer", [0, 2])


@pytest.fixture(scope="module")
def tokens(random_tokens):
    return random_tokens(4, 16)


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request, tmp_path_factory):
    """A tiny model of every family that is promised, made on the spot."""
    return make_tiny_model(request.param, tmp_path_factory.mktemp("family") / request.param)


@pytest.fixture(scope="module")
def model(folder):
    """The same through TransformerLens. Shared between tests: do not change it."""
    return load_model(folder)


@pytest.fixture(scope="module")
def plain(folder):
    """The Hugging Face model as it is on disk."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@torch.inference_mode()
def test_logits_are_those_of_hugging_face_for_all_tokens_and_for_some(model, plain, tokens):
    end, expected = run_blocks(model, tokens=tokens), plain(tokens).logits
    assert_close(unembed(model, end), expected)
    some = torch.tensor([7, 3, 200])
    assert_close(unembed(model, end, some), expected[..., some])


@torch.inference_mode()
def test_activations_are_what_transformer_lens_gives_under_the_papers_names(model, tokens):
    _, cache = model.run_with_cache(tokens)
    for layer, (mlp_in, mlp_out) in mlp_activations(model, tokens, [0, 1, 2]).items():
        assert_close(mlp_in, cache[mlp_input(model, layer)].view_as(mlp_in))
        assert_close(mlp_out, cache[f"blocks.{layer}.hook_mlp_out"].view_as(mlp_out))
        if f"blocks.{layer}.ln2.hook_normalized" in model.hook_dict:
            assert mlp_input(model, layer) == f"blocks.{layer}.ln2.hook_normalized"


@torch.inference_mode()
@OUTER
def test_replacing_an_output_equals_a_hook_on_the_plain_model(model, plain, tokens, layer):
    site = run_through_site(model, tokens, layer)
    own = site.activations.mlp_out
    # Mostly not zero-mean: what is put in need not be in the image of the centred MLP.
    replacement = own.roll(1, dims=1) + torch.linspace(-1, 2, own.shape[-1])
    family = plain.config.model_type
    block = plain.get_submodule(BLOCKS.get(family, "model.layers"))[layer]
    output = block.get_submodule(OUTPUT.get(family, "mlp.down_proj"))
    hook = output.register_forward_hook(lambda _, __, out: replacement.view_as(out))
    expected = plain(tokens).logits
    hook.remove()

    # The replacement matters.
    assert (expected - unembed(model, site.normalized)).abs().max() > 0.1
    continued = continue_with_mlp_out(model, site, layer, replacement)
    assert_close(unembed(model, continued), expected)


@torch.inference_mode()
@OUTER
def test_parts_of_a_pass_give_what_the_whole_gave(model, tokens, layer):
    site = run_through_site(model, tokens, layer)
    mlp_in, mlp_out = site.activations
    assert torch.equal(continue_with_mlp_out(model, site, layer, mlp_out), site.normalized)
    by_the_bridge = model(site.residual_before, start_at_layer=layer)
    blocks_alone = run_blocks(model, residual=site.residual_before, start=layer)
    assert_close(unembed(model, blocks_alone), by_the_bridge)
    assert_close(mlp_out_for(model, site, layer, mlp_in), mlp_out)
    assert_close(mlp_out_for(model, site, layer, mlp_in.roll(1, dims=0)), mlp_out.roll(1, dims=0))


@torch.inference_mode()
@pytest.mark.parametrize("first", [0, 1])
def test_ce_and_kl_are_those_of_all_log_probabilities(model, tokens, monkeypatch, first):
    monkeypatch.setitem(predictions.CHUNK_TOKENS, "cpu", 100)  # the last chunk is smaller
    site = run_through_site(model, tokens, 1)
    changed = continue_with_mlp_out(model, site, 1, site.activations.mlp_out.roll(1, dims=1))
    own, other = (
        unembed(model, end)[:, first:-1].double().log_softmax(dim=-1)
        for end in (site.normalized, changed)
    )
    following = tokens[:, first + 1 :, None].long()
    expected_ce, other_ce = (-each.gather(2, following).sum(dim=(1, 2)) for each in (own, other))
    expected_kl = (own.exp() * (own - other)).sum(dim=(1, 2))
    predicted = Predictions(model, tokens, site.normalized, first=first)
    ce, kl = predicted.of_changed(changed)
    # Sums of some nats a token over a row.
    within = {"rtol": 0, "atol": 1e-6 * tokens.shape[1]}
    torch.testing.assert_close(predicted.ce, expected_ce, **within)
    torch.testing.assert_close(ce, other_ce, **within)
    torch.testing.assert_close(kl, expected_kl, **within)
    assert expected_kl.min() > 0.01
    same_ce, no_kl = predicted.of_changed(site.normalized)
    assert torch.equal(same_ce, predicted.ce)
    assert not no_kl.any()


def test_nothing_is_left_behind(model, tokens):
    def hooks():
        return {name: len(point.fwd_hooks) for name, point in model.hook_dict.items()}

    blocks, before = list(model.blocks), hooks()  # TransformerLens keeps some of its own on OPT
    run_through_site(model, tokens, 1)
    with pytest.raises(IndexError):  # an id beyond the vocabulary: the pass itself fails
        mlp_activations(model, torch.full((1, 4), 10_000), [1])
    assert all(map(lambda a, b: a is b, model.blocks, blocks))
    assert hooks() == before


def test_a_mixture_of_experts_is_refused_by_name(tmp_path):
    with pytest.raises(UserError, match=r"'mixtral' cannot be used here: layer 0 is a mixture of"):
        make_tiny_model("mixtral", tmp_path / "mixtral")
    assert not any(tmp_path.iterdir())


def test_a_model_that_scales_what_it_adds_is_found_out(tiny_models):
    model = load_model(tiny_models["llama"])
    assert probe(model) == (None, False)
    with interventions(model, {"blocks.1.hook_resid_post": lambda x: 2 * x}, (1, 4)):
        assert "layer 1 scales" in str(probe(model)[0])


@EVERY_DAMAGE
def test_missing_or_damaged_files_of_a_model_are_named_at_loading(tiny_models, tmp_path, damage):
    folder = Path(shutil.copytree(tiny_models["gpt2"], tmp_path / "damaged"))
    for load, name in ((load_model, "model.safetensors"), (load_tokenizer, "tokenizer.json")):
        load(folder)
        damage(folder / name)
        with pytest.raises(UserError, match=f"{folder / name}: expected SHA-256"):
            load(folder)
    shutil.rmtree(folder)
    with pytest.raises(UserError, match=f"{folder}: expected a model folder, found no such"):
        load_model(folder)
