"""The hub's cache laid out by hand, since no test reaches a network."""

import hashlib
import io
import sys
from types import ModuleType
from unittest import mock

import pandas as pd
import torch

from transcoders.config import Model, SyntheticModel
from transcoders.models import fetch_model


def digest(content):
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def add_to_hub(cache, repo, revision, files, kind):
    """Lay files out as the hub's own cache does: contents in blobs, names as links to them."""
    root = cache / f"{kind}s--{repo.replace('/', '--')}"
    snapshot = root / "snapshots" / revision
    (root / "refs").mkdir(parents=True)
    (root / "blobs").mkdir()
    (root / "refs" / "main").write_text(revision)
    for name, content in files.items():
        blob = root / "blobs" / digest(content)
        blob.write_bytes(content)
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).symlink_to(blob)
    return snapshot


def add_model(cache, section, architecture, folder):
    """Make a random model with the dimensions that a scale file gives, and lay it out."""
    random = SyntheticModel(type="synthetic", architecture=architecture, license="none")
    fetch_model(Model.model_validate(section | {"source": random}), folder, seed=0)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    add_to_hub(cache, section["source"]["repo"], section["source"]["revision"], files, "model")


def shard(first, n_documents, n_words=200):
    """Documents of known words as a Parquet file, each document a different one."""
    texts = [
        " ".join(f"w{(7 * number + j * j) % 200}" for j in range(n_words))
        for number in range(first, first + n_documents)
    ]
    return pd.DataFrame({"text": texts}).to_parquet()


def released_tensors(d_model=32, n_features=64, seed=0):
    """Random tensors of a released transcoder."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    return {
        "W_enc": normal(d_model, n_features) / d_model**0.5,
        "b_enc": normal(n_features) * 0.1,
        "W_dec": normal(n_features, d_model) / n_features**0.5,
        "b_dec": normal(d_model),
        "b_dec_out": normal(d_model),
    }


def released_file(tensors, **saving):
    """A file as the authors wrote theirs: a configuration object and tensors, pickled."""
    package, module = ModuleType("sae_training"), ModuleType("sae_training.config")
    runner_config = type("LanguageModelSAERunnerConfig", (), {"__module__": "sae_training.config"})
    module.LanguageModelSAERunnerConfig = runner_config
    configuration = runner_config()
    configuration.l1_coefficient = 8e-5
    configuration.is_transcoder = True
    configuration.dtype = torch.float32
    configuration.device = torch.device("cuda")
    stream = io.BytesIO()
    with mock.patch.dict(sys.modules, {"sae_training": package, "sae_training.config": module}):
        torch.save({"cfg": configuration, "state_dict": tensors}, stream, **saving)
    return stream.getvalue()
