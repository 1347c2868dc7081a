"""Released transcoders: exactly the authors' function, and nothing from their file is executed."""

import json
import os
import re

import pytest
import torch

from helpers_hub import add_to_hub, digest, released_file, released_tensors
from helpers_models import TINY_WIDTH as D_MODEL
from helpers_models import tiny_section
from transcoders.config import HubSource, ImportedTranscoder, Site
from transcoders.dictionaries import SparseDictionary
from transcoders.errors import UserError
from transcoders.imported import import_transcoder, load_released

N_FEATURES = 64
REPO, REVISION = "pchlenski/gpt2-transcoders", "4f3ca345572ce2d75018a60d10b4dca8bd899e99"
FILE = "final_sparse_autoencoder_gpt2-small_blocks.8.ln2.hook_normalized_24576.pt"
FORMATS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "older format"])


def write(folder, content, *, zipped=True):
    """A file of these bytes, or what ``torch.save`` makes of something else."""
    path = folder / "released.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


def refusal(path):
    with pytest.raises(UserError) as caught:
        load_released(path, D_MODEL, N_FEATURES)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message and len(message) < 2000
    return message


@FORMATS
def test_the_folded_transcoder_computes_what_the_authors_does(tmp_path, zipped):
    tensors = released_tensors()
    path = write(tmp_path, released_file(tensors, _use_new_zipfile_serialization=zipped))
    dictionary, configuration = load_released(path, D_MODEL, N_FEATURES)
    x = 3 * torch.randn(20, D_MODEL, generator=torch.Generator().manual_seed(9))
    # What the released code computes, in float64.
    exact = {name: tensor.double() for name, tensor in tensors.items()}
    z = ((x.double() - exact["b_dec"]) @ exact["W_enc"] + exact["b_enc"]).clamp(min=0)
    y = z @ exact["W_dec"] + exact["b_dec_out"]
    found = dictionary.encode(x)
    assert (found > 0).any() and (found == 0).any()
    torch.testing.assert_close(found.double(), z, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(dictionary.decode(found).double(), y, rtol=1e-5, atol=1e-5)
    for name, of in {"W_enc": "W_enc", "W_dec": "W_dec", "b_dec": "b_dec_out"}.items():
        assert torch.equal(getattr(dictionary, name), tensors[of])  # these need no folding
    assert configuration["l1_coefficient"] == 8e-5 and configuration["is_transcoder"] is True
    assert (configuration["dtype"], configuration["device"]) == ("torch.float32", "cuda")
    json.dumps(configuration)


@FORMATS
def test_a_malicious_file_is_refused_and_nothing_in_it_runs(tmp_path, zipped):
    canary = tmp_path / "executed"
    # Pickled, it is a call of a function that the file names.
    call = type("Call", (), {"__reduce__": lambda _: (os.system, (f"touch {canary}",))})()
    path = write(tmp_path, {"cfg": call, "state_dict": released_tensors()}, zipped=zipped)
    assert "refused, since it holds more than tensors and plain values: it names" in refusal(path)
    assert not canary.exists()
    torch.load(path, weights_only=False)
    assert canary.exists()  # an unrestricted loader would have run it


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda w: w.new_zeros(7, 5), r"found \{.*\(7, 5\)"),
        (lambda w: w.long(), "expected floating-point tensors"),
        (lambda w: w.double() * 1e300, "expected finite numbers in float32, found others in"),
    ],
    ids=["shape", "integers", "huge"],
)
def test_wrong_tensors_are_refused(tmp_path, change, expected):
    tensors = released_tensors()
    changed = tensors | {"W_enc": change(tensors["W_enc"])}
    path = write(tmp_path, {"cfg": None, "state_dict": changed})
    assert re.search(expected, refusal(path))


def test_a_truncated_file_or_one_of_something_else_is_refused_in_one_sentence(tmp_path):
    assert "expected a mapping with cfg and state_dict" in refusal(write(tmp_path, [1]))
    whole = released_file(released_tensors())
    assert "cannot be read" in refusal(write(tmp_path, whole[: len(whole) // 3]))


def test_a_released_transcoder_is_fetched_and_saved_in_this_format(tmp_path, hub):
    content = released_file(released_tensors())
    add_to_hub(hub, REPO, REVISION, {FILE: content}, "model")
    destination, site = tmp_path / "dictionary", Site(model="gpt2-small", layer=8)
    source = HubSource(type="hub", repo=REPO, revision=REVISION, license="MIT")
    model = tiny_section({"n_layers": 12}, type="synthetic", architecture="gpt2")
    import_transcoder(ImportedTranscoder(site, source, FILE, N_FEATURES), model, destination)
    config = json.loads((destination / "cfg.json").read_text())
    assert config["metadata"]["hook_name"] == "blocks.8.ln2.hook_normalized"
    assert config["imported"]["revision"] == REVISION
    assert config["imported"]["sha256"] == digest(content)
    saved = SparseDictionary.from_pretrained(destination).state_dict()
    expected = load_released(write(tmp_path, content), D_MODEL, N_FEATURES)[0].state_dict()
    assert all(torch.equal(saved[name], expected[name]) for name in expected)
