"""Transcoders and sparse autoencoders (SAEs).

Both are one wide ReLU layer (paper, section 3.1; SAE: the same with target = input):

    z = ReLU(x W_enc + b_enc)          features, sparse
    y = z W_dec + b_dec                an approximation of the target

A transcoder reads the MLP's input and imitates its output. An SAE reads and imitates one and the
same tensor, and subtracts ``b_dec`` from its input first. Two extensions of the transcoder: a skip
transcoder adds x W_skipᵀ to y (Paulo et al. 2025), a TopK transcoder keeps the k largest
pre-activations of each token and sets the others to zero (Gao et al. 2024). Matrices are stored as
SAELens stores them, so row i of ``W_dec`` is the decoder vector of feature i, column i of ``W_enc``
its encoder vector.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from transcoders.checksums import check_sha256, sha256
from transcoders.config import TRAITS, Kind, Traits
from transcoders.errors import UserError
from transcoders.files import made_folder, read_json, save_tensors, write_json

SAELENS_FORMAT = "6.54.0"
"""The SAELens version whose file format is written."""


@dataclass
class Weights:
    """The parameters of a dictionary."""

    W_enc: Float[Tensor, "d_in n_features"]
    b_enc: Float[Tensor, " n_features"]
    W_dec: Float[Tensor, "n_features d_out"]
    b_dec: Float[Tensor, " d_out"]
    W_skip: Float[Tensor, "d_out d_in"] | None = None
    """Of a skip transcoder only."""

    def tensors(self) -> dict[str, Tensor]:
        """The parameters that there are, by name."""
        return {name: tensor for name, tensor in vars(self).items() if tensor is not None}


@dataclass
class SparseDictionary:
    """A trained dictionary that works on raw activations."""

    weights: Weights
    kind: Kind
    k: int | None = None
    """Of a TopK transcoder: how many features may be active for a token."""

    @property
    def traits(self) -> Traits:
        """What its kind reads and imitates."""
        return TRAITS[self.kind]

    @property
    def n_features(self) -> int:
        """Width of the dictionary."""
        return self.weights.W_dec.shape[0]

    def encode(self, x: Float[Tensor, "... d_in"]) -> Float[Tensor, "... n_features"]:
        """Feature activations z of the input activations ``x``."""
        centred = x if self.traits.is_transcoder else x - self.weights.b_dec
        z = torch.relu(centred @ self.weights.W_enc + self.weights.b_enc)
        if self.k is None:
            return z
        largest = z.topk(self.k, dim=-1)
        return torch.zeros_like(z).scatter(-1, largest.indices, largest.values)

    def decode(self, z: Float[Tensor, "... n_features"]) -> Float[Tensor, "... d_out"]:
        """The approximation of the target that features ``z`` stand for, without a skip."""
        return z @ self.weights.W_dec + self.weights.b_dec

    def reconstruct(
        self, x: Float[Tensor, "... d_in"], z: Float[Tensor, "... n_features"]
    ) -> Float[Tensor, "... d_out"]:
        """The approximation of the target from input ``x`` and its features ``z``."""
        W_skip = self.weights.W_skip
        return self.decode(z) if W_skip is None else self.decode(z) + x @ W_skip.T

    def to(self, device: str) -> "SparseDictionary":
        """The same dictionary with its weights on another device."""
        moved = {name: tensor.to(device) for name, tensor in self.weights.tensors().items()}
        return SparseDictionary(Weights(**moved), self.kind, self.k)


def save_dictionary(
    dictionary: SparseDictionary,
    folder: Path,
    record: dict[str, Any],
    training_csv: str | None = None,
) -> None:
    """Write ``cfg.json``, ``sae_weights.safetensors`` and ``training.csv``, all or nothing.

    SAELens loads the folder as it is, by the ``architecture`` of ``cfg.json``: ``transcoder``,
    ``skip_transcoder``, ``topk`` (a TopK transcoder), ``standard`` (an SAE).

    Args:
        dictionary: what to save.
        folder: where; an older dictionary there is replaced.
        record: what it is and where it comes from: saved in ``cfg.json``, with a key ``metadata``.
        training_csv: the training curve, if it was trained here.
    """
    weights = dictionary.weights
    config: dict[str, Any] = {
        "architecture": _architecture(dictionary.traits),
        "d_in": weights.W_enc.shape[0],
        "d_sae": weights.W_enc.shape[1],
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": not dictionary.traits.is_transcoder,
        "normalize_activations": "none",
        "reshape_activations": "none",
    }
    if dictionary.traits.is_transcoder:
        config["d_out"] = weights.W_dec.shape[1]
    if dictionary.k is not None:
        config |= {"k": dictionary.k, "rescale_acts_by_decoder_norm": False}
    metadata = {"sae_lens_version": SAELENS_FORMAT, "kind": dictionary.kind, **record["metadata"]}
    with made_folder(folder) as temporary:
        tensors = {name: tensor.cpu().contiguous() for name, tensor in weights.tensors().items()}
        save_tensors(temporary / "sae_weights.safetensors", tensors)
        config["weights_sha256"] = sha256(temporary / "sae_weights.safetensors")
        write_json(temporary / "cfg.json", {**config, **record, "metadata": metadata})
        if training_csv is not None:
            (temporary / "training.csv").write_text(training_csv, encoding="utf-8")


def _architecture(traits: Traits) -> str:
    """What SAELens calls it. Its TopK dictionaries are of one width, as an MLP's two sides are."""
    if traits.has_skip:
        return "skip_transcoder"
    if traits.is_topk:
        return "topk"
    return "transcoder" if traits.is_transcoder else "standard"


def load_dictionary(folder: Path) -> SparseDictionary:
    """Load a folder that :func:`save_dictionary` wrote.

    Raises:
        UserError: a file is missing or damaged, or the weights are not those that ``cfg.json``
            describes: their shapes or their hash differ.
    """
    config = read_json(folder / "cfg.json")
    try:
        kind = config["metadata"]["kind"]
        traits = TRAITS[kind]
        k = config["k"] if traits.is_topk else None
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
    if traits.has_skip:
        expected["W_skip"] = (d_out, d_in)
    found = {name: tuple(tensor.shape) for name, tensor in weights.tensors().items()}
    if found != expected:
        raise UserError(
            f"{path}: expected tensors of shapes {expected} as cfg.json says, found {found}; "
            f"delete {folder} and run again"
        )
    check_sha256(path, config.get("weights_sha256"), f"delete {folder} and run again")
    return SparseDictionary(weights, kind, k)
