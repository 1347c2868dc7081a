"""A dictionary computes what its formula says and comes back from disk as it was."""

import json

import pytest
import torch

from helpers_damage import EVERY_DAMAGE
from transcoders.checksums import sha256
from transcoders.config import TRAITS, load_scale
from transcoders.dictionaries import SparseDictionary
from transcoders.errors import UserError
from workflow.running import REPOSITORY


@pytest.fixture
def saved(random_dictionary, tmp_path):
    random_dictionary("transcoder").save_pretrained(tmp_path / "saved", {"metadata": {}})
    return tmp_path / "saved"


@pytest.mark.parametrize("kind", TRAITS)
def test_what_is_saved_and_loaded_is_the_same_to_the_bit_and_described(
    random_dictionary, tmp_path, kind
):
    dictionary = random_dictionary(kind, d_in=6, n_features=10)
    record = {"metadata": {"hook_name": "blocks.1.ln2.hook_normalized"}, "training": {"seed": 42}}
    dictionary.save_pretrained(tmp_path, record)
    loaded = SparseDictionary.from_pretrained(tmp_path)
    assert (loaded.kind, loaded.k) == (kind, dictionary.k)
    tensors = loaded.state_dict()
    assert tensors.keys() == dictionary.state_dict().keys()
    for name, tensor in dictionary.state_dict().items():
        assert torch.equal(tensors[name], tensor), name
    config = json.loads((tmp_path / "cfg.json").read_text())
    # Without a version, SAELens assumes an older format's defaults.
    assert config["metadata"]["sae_lens_version"].startswith("6.54")
    assert config["metadata"]["hook_name"] == "blocks.1.ln2.hook_normalized"
    assert config["training"] == {"seed": 42}
    assert (config["d_in"], config["d_sae"], config.get("k")) == (6, 10, dictionary.k)
    assert config["weights_sha256"] == sha256(tmp_path / "sae_weights.safetensors")


# Both formulas are computed in float64; 24 terms of order 1 leave fp32 about 1e-6 off.
@pytest.mark.parametrize("kind", TRAITS)
def test_encode_and_decode_follow_the_formula(random_dictionary, kind):
    dictionary = random_dictionary(kind, d_in=24, n_features=50)
    if TRAITS[kind].is_topk:
        dictionary.b_enc -= 1.5  # for some tokens, fewer than 8 features are positive
    exact = {name: tensor.double() for name, tensor in dictionary.state_dict().items()}
    x = torch.randn(2, 5, 24, generator=torch.Generator().manual_seed(1))
    centred = x.double() - (0 if TRAITS[kind].is_transcoder else exact["b_dec"])
    z = torch.einsum("bpd,df->bpf", centred, exact["W_enc"]).add(exact["b_enc"]).clamp(min=0)
    found = dictionary.encode(x)
    if TRAITS[kind].is_topk:
        z = z.where(z >= z.sort(dim=-1).values[..., -8:-7], 0)
        active = (found > 0).sum(dim=-1)
        assert active.min() < active.max() == 8
    y = torch.einsum("bpf,fd->bpd", z, exact["W_dec"]) + exact["b_dec"]
    torch.testing.assert_close(found.double(), z, rtol=0, atol=1e-5)
    mlp_in = x if TRAITS[kind].reads == "mlp_in" else x.flip(0)
    if TRAITS[kind].has_skip:
        y += torch.einsum("bpd,ed->bpe", mlp_in.double(), exact["W_skip"])
        with pytest.raises(ValueError, match="mlp_in: expected the MLP's input"):
            dictionary.decode(found)
    reconstruction = dictionary.decode(found, mlp_in)
    assert torch.equal(dictionary(x, mlp_in), reconstruction)
    torch.testing.assert_close(reconstruction.double(), y, rtol=0, atol=1e-5)


@EVERY_DAMAGE
def test_damaged_weights_are_named(saved, damage):
    weights = saved / "sae_weights.safetensors"
    damage(weights)
    with pytest.raises(UserError, match=str(weights)):
        SparseDictionary.from_pretrained(saved)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("", "expected JSON"),
        ('{"metadata": {"kind": "crosscoder"}, "weights_sha256": ""}', "found none .*crosscoder"),
    ],
)
def test_damaged_config_is_named(saved, content, found):
    (saved / "cfg.json").write_text(content)
    with pytest.raises(UserError, match=f"{saved / 'cfg.json'}: .*{found}"):
        SparseDictionary.from_pretrained(saved)


def test_what_is_committed_are_the_dictionaries_of_the_laptop_scale():
    committed = {path.name for path in (REPOSITORY / "results/laptop/dictionaries").iterdir()}
    scale = load_scale(REPOSITORY / "config/laptop.yaml")
    assert committed == {entry.name for entry in scale.dictionaries}
