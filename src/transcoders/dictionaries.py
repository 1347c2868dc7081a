"""Transcoders and sparse autoencoders (SAEs).

Both are one wide ReLU layer (paper, equations 1 to 3; SAE: the same with target = input):

    z = ReLU(x W_enc + b_enc)          features, sparse
    y = z W_dec + b_dec                an approximation of the target

A transcoder reads the MLP's input and imitates its output. An SAE reads and imitates one and the
same tensor, and subtracts ``b_dec`` from its input first. Matrices are stored as SAELens stores
them, so row i of ``W_dec`` is the decoder vector of feature i, column i of ``W_enc`` its encoder
vector.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from transcoders.config import Kind
from transcoders.errors import UserError
from transcoders.files import atomic_folder, read_json, write_json

SAELENS_FORMAT = "6.54.0"
"""The SAELens version whose file format is written."""


@dataclass
class Weights:
    """The four parameters of a dictionary."""

    W_enc: Float[Tensor, "d_in n_features"]
    b_enc: Float[Tensor, " n_features"]
    W_dec: Float[Tensor, "n_features d_out"]
    b_dec: Float[Tensor, " d_out"]


@dataclass
class SparseDictionary:
    """A trained dictionary that works on raw activations."""

    weights: Weights
    kind: Kind

    @property
    def is_transcoder(self) -> bool:
        """Whether input and target differ."""
        return self.kind == "transcoder"

    @property
    def n_features(self) -> int:
        """Width of the dictionary."""
        return self.weights.W_dec.shape[0]

    def encode(self, x: Float[Tensor, "... d_in"]) -> Float[Tensor, "... n_features"]:
        """Feature activations z of the input activations ``x``."""
        centred = x if self.is_transcoder else x - self.weights.b_dec
        return torch.relu(centred @ self.weights.W_enc + self.weights.b_enc)

    def decode(self, z: Float[Tensor, "... n_features"]) -> Float[Tensor, "... d_out"]:
        """The approximation of the target that features ``z`` stand for."""
        return z @ self.weights.W_dec + self.weights.b_dec

    def to(self, device: str) -> "SparseDictionary":
        """The same dictionary with its weights on another device."""
        moved = {name: tensor.to(device) for name, tensor in vars(self.weights).items()}
        return SparseDictionary(Weights(**moved), self.kind)


def save_dictionary(
    dictionary: SparseDictionary, folder: Path, record: dict[str, Any], training_csv: str
) -> None:
    """Write ``cfg.json``, ``sae_weights.safetensors`` and ``training.csv``, all or nothing.

    SAELens loads the folder as it is: a transcoder as ``transcoder``, an SAE as ``standard``.

    Args:
        dictionary: what to save.
        folder: where; an older dictionary there is replaced.
        record: how it was trained: saved in ``cfg.json`` under ``metadata`` and ``training``.
        training_csv: the training curve.
    """
    weights = dictionary.weights
    config: dict[str, Any] = {
        "architecture": "transcoder" if dictionary.is_transcoder else "standard",
        "d_in": weights.W_enc.shape[0],
        "d_sae": weights.W_enc.shape[1],
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": not dictionary.is_transcoder,
        "normalize_activations": "none",
        "reshape_activations": "none",
    }
    if dictionary.is_transcoder:
        config["d_out"] = weights.W_dec.shape[1]
    metadata = {"sae_lens_version": SAELENS_FORMAT, "kind": dictionary.kind, **record["metadata"]}
    with atomic_folder(folder) as temporary:
        tensors = {name: tensor.cpu().contiguous() for name, tensor in vars(weights).items()}
        save_file(tensors, temporary / "sae_weights.safetensors")
        write_json(temporary / "cfg.json", {**config, **record, "metadata": metadata})
        (temporary / "training.csv").write_text(training_csv, encoding="utf-8")


def load_dictionary(folder: Path) -> SparseDictionary:
    """Load a folder that :func:`save_dictionary` wrote.

    Raises:
        UserError: a file is missing or damaged, or a tensor's shape disagrees with ``cfg.json``.
    """
    config = read_json(folder / "cfg.json")
    try:
        kind = config["metadata"]["kind"]
        d_in, n_features, d_out = (
            config["d_in"],
            config["d_sae"],
            config.get("d_out", config["d_in"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{folder / 'cfg.json'}: expected the description of a dictionary ({error!r}); delete "
            f"{folder} and run again"
        ) from None
    path = folder / "sae_weights.safetensors"
    try:
        weights = Weights(**load_file(path))
    except (SafetensorError, OSError, TypeError) as error:
        raise UserError(
            f"{path}: expected the weights of a dictionary, found {error}; delete {folder} and run "
            "again"
        ) from None
    expected = {
        "W_enc": (d_in, n_features),
        "b_enc": (n_features,),
        "W_dec": (n_features, d_out),
        "b_dec": (d_out,),
    }
    for name, shape in expected.items():
        found = tuple(getattr(weights, name).shape)
        if found != shape:
            raise UserError(
                f"{path}: expected {name} of shape {shape} as cfg.json says, found {found}; delete "
                f"{folder} and run again"
            )
    return SparseDictionary(weights, kind)
