"""Released transcoders: exactly the authors' function, and nothing from their file is executed."""

import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers_hub import add_to_hub, authors_package, digest, released_file, released_tensors
from transcoders.config import HubSource, ImportedTranscoder, Model, Site, SyntheticModel
from transcoders.dictionaries import SparseDictionary
from transcoders.errors import UserError
from transcoders.imported import import_transcoder, load_released

D_MODEL, N_FEATURES = 32, 64
REPO, REVISION = "pchlenski/gpt2-transcoders", "4f3ca345572ce2d75018a60d10b4dca8bd899e99"
FILE = "final_sparse_autoencoder_gpt2-small_blocks.8.ln2.hook_normalized_24576.pt"


def write(folder: Path, content: bytes) -> Path:
    path = folder / "released.pt"
    path.write_bytes(content)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_released(path, D_MODEL, N_FEATURES)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    return message


def authors_forward(x: Tensor, tensors: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """What the released code computes, written out in float64, one token and feature at a time."""
    exact = {name: tensor.double() for name, tensor in tensors.items()}
    activations, outputs = [], []
    for row in x.double():
        centred = row - exact["b_dec"]
        z = [
            max(float(centred @ exact["W_enc"][:, i] + exact["b_enc"][i]), 0.0)
            for i in range(N_FEATURES)
        ]
        output = exact["b_dec_out"].clone()
        for value, direction in zip(z, exact["W_dec"], strict=True):
            output += value * direction
        activations.append(torch.tensor(z))
        outputs.append(output)
    return torch.stack(activations), torch.stack(outputs)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "older format"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_folded_transcoder_computes_what_the_authors_does(tmp_path, seed, zipped):
    tensors = released_tensors(seed=seed)
    path = write(tmp_path, released_file(tensors, _use_new_zipfile_serialization=zipped))
    dictionary, _ = load_released(path, D_MODEL, N_FEATURES)
    x = 3 * torch.randn(20, D_MODEL, generator=torch.Generator().manual_seed(9))
    z, y = authors_forward(x, tensors)
    assert (z > 0).any() and (z == 0).any()
    found = dictionary.encode(x)
    torch.testing.assert_close(found.double(), z.double(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(dictionary.decode(found).double(), y, rtol=1e-5, atol=1e-5)


def test_weights_that_need_no_folding_are_kept_to_the_bit(tmp_path):
    tensors = released_tensors()
    dictionary, _ = load_released(write(tmp_path, released_file(tensors)), D_MODEL, N_FEATURES)
    assert dictionary.kind == "transcoder"
    assert torch.equal(dictionary.W_enc, tensors["W_enc"])
    assert torch.equal(dictionary.W_dec, tensors["W_dec"])
    assert torch.equal(dictionary.b_dec, tensors["b_dec_out"])


def test_the_configuration_becomes_plain_values(tmp_path):
    path = write(tmp_path, released_file(released_tensors()))
    _, configuration = load_released(path, D_MODEL, N_FEATURES)
    assert configuration["l1_coefficient"] == 8e-5
    assert configuration["is_transcoder"] is True
    assert configuration["dtype"] == "torch.float32"
    assert configuration["device"] == "cuda"
    json.dumps(configuration)


class Runs:
    """Pickled, it is a call of a function that the file names."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.fixture
def canary(tmp_path) -> Path:
    """A file that comes to exist only if a pickle gets its way."""
    return tmp_path / "executed"


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "older format"])
@pytest.mark.parametrize("place", ["cfg", "state_dict", "more"])
@pytest.mark.parametrize(
    "exploit",
    [
        lambda canary: Runs(os.system, f"touch {canary}"),
        lambda canary: Runs(exec, f"open({str(canary)!r}, 'w').close()"),
        lambda canary: Runs(eval, f"open({str(canary)!r}, 'w')"),
        lambda canary: Runs(subprocess.Popen, ["touch", str(canary)]),
        lambda _: Runs(__import__, "os"),
        lambda _: Runs(getattr, "text", "upper"),
        lambda canary: Runs(torch.load, str(canary)),
        lambda canary: Runs(open, str(canary), "w"),
        lambda canary: Runs(Path.touch, canary),
        lambda _: Runs(pickle.loads, pickle.dumps(1)),
    ],
    ids=["system", "exec", "eval", "Popen", "import", "getattr", "load", "open", "touch", "loads"],
)
def test_a_malicious_file_is_refused_and_nothing_in_it_runs(
    tmp_path, canary, exploit, place, zipped
):
    content: dict[str, Any] = {"cfg": None, "state_dict": released_tensors()}
    content[place] = exploit(canary)
    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=zipped)
    message = refusal(write(tmp_path, stream.getvalue()))
    assert "refused" in message
    assert not canary.exists()


def test_the_exploits_would_work_on_an_unrestricted_loader(tmp_path, canary):
    stream = io.BytesIO()
    torch.save({"cfg": Runs(os.system, f"touch {canary}")}, stream)
    torch.load(write(tmp_path, stream.getvalue()), weights_only=False)
    assert canary.exists()


def test_another_class_than_the_expected_one_is_refused_by_name(tmp_path):
    stream = io.BytesIO()
    torch.save({"cfg": zipfile.ZipInfo("x"), "state_dict": released_tensors()}, stream)
    message = refusal(write(tmp_path, stream.getvalue()))
    assert "refused" in message and "zipfile.ZipInfo" in message


def test_state_of_the_configuration_cannot_reach_methods(tmp_path):
    """The class that stands for the authors' one has no method that a state could trigger."""
    with authors_package() as runner_config:
        configuration = runner_config()
        configuration.__dict__ |= {"__setstate__": "x", "__reduce__": "y", "__class__": "z"}
        stream = io.BytesIO()
        torch.save({"cfg": configuration, "state_dict": released_tensors()}, stream)
    _, fields = load_released(write(tmp_path, stream.getvalue()), D_MODEL, N_FEATURES)
    assert fields["__setstate__"] == "x"


def test_loading_needs_none_of_the_authors_code(tmp_path):
    path = write(tmp_path, released_file(released_tensors()))
    code = (
        "import sys; from pathlib import Path; from transcoders.imported import load_released; "
        f"load_released(Path({str(path)!r}), {D_MODEL}, {N_FEATURES}); "
        "assert not any('sae_training' in name for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ["W_enc", "b_enc", "W_dec", "b_dec", "b_dec_out"])
def test_wrong_tensors_are_refused_by_name_and_shape(tmp_path, name):
    tensors = released_tensors()
    transposed = tensors | {name: torch.zeros(7, 5)}
    assert "(7, 5)" in refusal(write(tmp_path, released_file(transposed)))
    missing = {key: tensor for key, tensor in tensors.items() if key != name}
    assert f"'{name}'" in refusal(write(tmp_path, released_file(missing))).split("found")[0]
    for value in (float("nan"), float("inf")):
        spoiled = tensors[name].clone()
        spoiled.view(-1)[3] = value
        message = refusal(write(tmp_path, released_file(tensors | {name: spoiled})))
        assert f"{name}: expected finite" in message
    whole = tensors | {name: tensors[name].long()}
    assert f"{name}: expected finite floating-point" in refusal(
        write(tmp_path, released_file(whole))
    )


@pytest.mark.parametrize("content", [[1, 2], {"state_dict": {}}, {"cfg": 1}, "text", None])
def test_a_file_of_something_else_is_refused(tmp_path, content):
    stream = io.BytesIO()
    torch.save(content, stream)
    assert "expected a mapping with cfg and state_dict" in refusal(
        write(tmp_path, stream.getvalue())
    )


@pytest.mark.parametrize("tensors", [[], 3, {"W_enc": 1}])
def test_tensors_that_are_none_are_refused(tmp_path, tensors):
    assert "expected tensors of shapes" in refusal(write(tmp_path, released_file(tensors)))


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "older format"])
def test_a_truncated_file_is_refused_in_one_sentence(tmp_path, share, zipped):
    whole = released_file(released_tensors(), _use_new_zipfile_serialization=zipped)
    message = refusal(write(tmp_path, whole[: int(share * len(whole))]))
    assert "damaged" in message or "refused" in message
    assert "\n" not in message


def test_a_missing_file_is_named(tmp_path):
    assert "no such file in the repository" in refusal(tmp_path / "absent.pt")


def entry() -> ImportedTranscoder:
    source = HubSource(type="hub", repo=REPO, revision=REVISION, license="MIT")
    return ImportedTranscoder(Site(model="gpt2-small", layer=8), source, FILE, N_FEATURES)


MODEL = Model(
    source=SyntheticModel(type="synthetic", architecture="gpt2", license="none"),
    n_layers=12, d_model=D_MODEL, bos_token="<|endoftext|>",
)  # fmt: skip


def test_a_released_transcoder_is_fetched_and_saved_in_this_format(tmp_path, hub):
    content = released_file(released_tensors())
    add_to_hub(hub, REPO, REVISION, {FILE: content}, "model")
    destination = tmp_path / "dictionary"
    import_transcoder(entry(), MODEL, destination)
    assert sorted(path.name for path in destination.iterdir()) == [
        "cfg.json", "sae_weights.safetensors",
    ]  # fmt: skip
    config = json.loads((destination / "cfg.json").read_text())
    assert config["architecture"] == "transcoder"
    assert config["apply_b_dec_to_input"] is False
    assert config["metadata"]["hook_name"] == "blocks.8.ln2.hook_normalized"
    assert config["imported"]["revision"] == REVISION
    assert config["imported"]["sha256"] == digest(content)
    saved = SparseDictionary.from_pretrained(destination).state_dict()
    expected = load_released(write(tmp_path, content), D_MODEL, N_FEATURES)[0].state_dict()
    assert all(torch.equal(saved[name], expected[name]) for name in expected)


def test_a_refused_file_leaves_nothing(tmp_path, hub):
    add_to_hub(hub, REPO, REVISION, {FILE: b"no transcoder"}, "model")
    with pytest.raises(UserError):
        import_transcoder(entry(), MODEL, tmp_path / "dictionaries" / "one")
    assert not list(tmp_path.glob("dictionaries/*"))


def test_a_file_that_the_hub_lacks_is_named(tmp_path, hub):
    add_to_hub(hub, REPO, REVISION, {"other.pt": b""}, "model")
    with pytest.raises(UserError, match="hook_normalized_24576"):
        import_transcoder(entry(), MODEL, tmp_path / "one")
