"""What is written to disk loads in SAELens, unpatched, and computes the same there.

It has no SAE with a skip, and must not take one for something else.

SAELens pins another TransformerLens, so it lives in an environment of its own, made on first use.
"""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from transcoders.config import TRAITS, Kind
from transcoders.dictionaries import SAELENS_FORMAT
from workflow.running import REPOSITORY

ENVIRONMENT = REPOSITORY / ".venv-saelens"
CLASSES: dict[Kind, str] = {"transcoder": "Transcoder", "skip_transcoder": "SkipTranscoder"}
NOT_IN_SAELENS: Kind = "skip_sae"
LOAD_AND_RUN = """
import sys
import sae_lens
from safetensors.torch import load_file, save_file
folder, name, x_file, out_file = sys.argv[1:]
dictionary = getattr(sae_lens, name).load_from_disk(folder, device="cpu")
x = load_file(x_file)["x"]
outputs = {"z": dictionary.encode(x), "y": dictionary(x)}
save_file({name: tensor.detach().contiguous() for name, tensor in outputs.items()}, out_file)
"""


@pytest.fixture(scope="session")
def saelens_python():
    python = ENVIRONMENT / "bin" / "python"
    done = ENVIRONMENT / ".installed"
    if not done.exists():
        subprocess.run([sys.executable, "-m", "venv", ENVIRONMENT], check=True)
        packages = [f"torch=={torch.__version__.split('+')[0]}", f"sae-lens=={SAELENS_FORMAT}"]
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
        done.touch()
    return python


@pytest.mark.full
@pytest.mark.parametrize("kind", [kind for kind in TRAITS if kind != NOT_IN_SAELENS])
def test_saelens_loads_and_computes_the_same(kind, saelens_python, random_dictionary, tmp_path):
    dictionary = random_dictionary(kind, d_in=16, n_features=64, d_out=16, seed=1)
    folder = tmp_path / "dictionary"
    dictionary.save_pretrained(folder, {"metadata": {"model_name": "any"}})
    x = torch.randn(10, 16, generator=torch.Generator().manual_seed(2))
    save_file({"x": x}, tmp_path / "x.safetensors")
    files = [tmp_path / "x.safetensors", tmp_path / "out.safetensors"]
    command = [saelens_python, "-c", LOAD_AND_RUN, folder, CLASSES.get(kind, "SAE"), *files]
    subprocess.run(command, check=True)
    theirs = load_file(tmp_path / "out.safetensors")
    # Two float32 implementations of the same sums.
    torch.testing.assert_close(theirs["z"], dictionary.encode(x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(theirs["y"], dictionary(x), rtol=1e-5, atol=1e-5)


@pytest.mark.full
def test_saelens_refuses_the_kind_that_it_does_not_have(
    saelens_python, random_dictionary, tmp_path
):
    folder = tmp_path / "dictionary"
    random_dictionary(NOT_IN_SAELENS).save_pretrained(folder, {"metadata": {}})
    assert "does not load" in json.loads((folder / "cfg.json").read_text())["remark"]
    code = "import sys, sae_lens; sae_lens.SAE.load_from_disk(sys.argv[1], device='cpu')"
    run = subprocess.run(
        [saelens_python, "-c", code, folder], capture_output=True, text=True, check=False
    )
    assert run.returncode != 0
    assert NOT_IN_SAELENS in run.stderr
