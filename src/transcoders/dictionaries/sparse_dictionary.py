"""Transcoders and sparse autoencoders (SAEs).

Both are one wide ReLU layer (paper, section 3.1; SAE: the same with target = input):

    z = ReLU(x W_enc + b_enc)          features, sparse
    y = z W_dec + b_dec                an approximation of the target

A transcoder reads the MLP's input and imitates its output. An SAE reads and imitates the same
tensor, and subtracts ``b_dec`` from its input first. There are two extensions of either. One with a
skip adds W_skip times the MLP's input to y (Paulo et al. 2025 do so for the transcoder). One with
TopK keeps the k largest pre-activations of each token and sets the others to zero (Gao et al.
2024). Matrices are stored as SAELens stores them, so row i of ``W_dec`` is the decoder vector of
feature i, column i of ``W_enc`` its encoder vector.
"""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from transcoders.checksums import sha256
from transcoders.config import TRAITS, Kind, Traits
from transcoders.errors import UserError
from transcoders.files import made_folder, read_json, read_tensors, save_tensors, write_json

SAELENS_FORMAT = "6.54.12"
"""The SAELens version whose file format is written."""


class SparseDictionary(nn.Module):
    """A dictionary that works on raw activations.

    Attributes:
        kind: what it reads and imitates, and how its features activate.
        k: of a TopK dictionary, how many features may be active for a token.
        W_enc: (d_in, n_features).
        b_enc: (n_features,).
        W_dec: (n_features, d_out).
        b_dec: (d_out,).
        W_skip: (d_out, d_in), or None: only kinds with a skip have one.
    """

    def __init__(
        self,
        kind: Kind,
        *,
        W_enc: Float[Tensor, "d_in n_features"],
        b_enc: Float[Tensor, " n_features"],
        W_dec: Float[Tensor, "n_features d_out"],
        b_dec: Float[Tensor, " d_out"],
        W_skip: Float[Tensor, "d_out d_in"] | None = None,
        k: int | None = None,
    ) -> None:
        """Take over tensors as parameters; they need ``requires_grad_()`` before training."""
        super().__init__()
        self.kind, self.k = kind, k
        self.W_enc = nn.Parameter(W_enc, requires_grad=False)
        self.b_enc = nn.Parameter(b_enc, requires_grad=False)
        self.W_dec = nn.Parameter(W_dec, requires_grad=False)
        self.b_dec = nn.Parameter(b_dec, requires_grad=False)
        self.W_skip = None if W_skip is None else nn.Parameter(W_skip, requires_grad=False)

    @property
    def traits(self) -> Traits:
        """What its kind reads and imitates."""
        return TRAITS[self.kind]

    @property
    def n_features(self) -> int:
        """Width of the dictionary."""
        return self.W_dec.shape[0]

    def read(self, x: Float[Tensor, "... d_in"]) -> Float[Tensor, "... d_in"]:
        """What the encoder multiplies: ``x``, or ``x - b_dec`` for an SAE."""
        return x if self.traits.is_transcoder else x - self.b_dec

    def encode(self, x: Float[Tensor, "... d_in"]) -> Float[Tensor, "... n_features"]:
        """Feature activations z."""
        z = (self.read(x) @ self.W_enc).add_(self.b_enc).relu_()
        if self.k is None:
            return z
        largest = z.topk(self.k, dim=-1)
        kept = torch.zeros_like(z) if z.requires_grad else z.zero_()
        return kept.scatter_(-1, largest.indices, largest.values)

    def decode(
        self, z: Float[Tensor, "... n_features"], mlp_in: Float[Tensor, "... d_in"] | None = None
    ) -> Float[Tensor, "... d_out"]:
        """The approximation of the target from features ``z``.

        Args:
            z: feature activations.
            mlp_in: the MLP's input, which only a skip reads.

        Raises:
            ValueError: there is a skip and no ``mlp_in``.
        """
        y = z @ self.W_dec + self.b_dec
        if self.W_skip is None:
            return y
        if mlp_in is None:
            raise ValueError("mlp_in: expected the MLP's input, which the skip reads, found None")
        return y + mlp_in @ self.W_skip.T

    def forward(
        self, x: Float[Tensor, "... d_in"], mlp_in: Float[Tensor, "... d_in"] | None = None
    ) -> Float[Tensor, "... d_out"]:
        """The approximation of the target from the input ``x``; a skip SAE needs the MLP's too."""
        if self.traits.reads == "mlp_in":
            mlp_in = x
        return self.decode(self.encode(x), mlp_in)

    def save_pretrained(
        self, folder: Path, record: dict[str, Any], *, training_csv: str | None = None
    ) -> None:
        """Write ``cfg.json``, ``sae_weights.safetensors`` and ``training.csv``, all or nothing.

        SAELens loads the folder as it is, by the ``architecture`` of ``cfg.json``. It has no SAE
        with a skip: it refuses that folder, and ``cfg.json`` says so.

        Args:
            folder: where; an older dictionary there is replaced.
            record: what it is and where it comes from: saved in ``cfg.json``, with a key
                ``metadata``.
            training_csv: the training curve, if it was trained here.
        """
        config: dict[str, Any] = {
            "architecture": _architecture(self.traits),
            "d_in": self.W_enc.shape[0],
            "d_sae": self.W_enc.shape[1],
            "dtype": "float32",
            "device": "cpu",
            "apply_b_dec_to_input": not self.traits.is_transcoder,
            "normalize_activations": "none",
            "reshape_activations": "none",
        }
        if self.traits.is_transcoder:
            config["d_out"] = self.W_dec.shape[1]
        elif self.W_skip is not None:
            config["remark"] = "SAELens has no SAE with a skip and does not load this"
        if self.k is not None:
            config |= {"k": self.k, "rescale_acts_by_decoder_norm": False}
        metadata = {"sae_lens_version": SAELENS_FORMAT, "kind": self.kind, **record["metadata"]}
        with made_folder(folder) as temporary:
            path = temporary / "sae_weights.safetensors"
            save_tensors(path, {n: t.cpu().contiguous() for n, t in self.state_dict().items()})
            config["weights_sha256"] = sha256(path)
            write_json(temporary / "cfg.json", {**config, **record, "metadata": metadata})
            if training_csv is not None:
                (temporary / "training.csv").write_text(training_csv, encoding="utf-8")

    @classmethod
    def from_pretrained(cls, folder: Path) -> "SparseDictionary":
        """Load a folder that :meth:`save_pretrained` wrote.

        Raises:
            UserError: a file is missing or damaged, or the hash of the weights differs from what
                ``cfg.json`` says.
        """
        config, again = read_json(folder / "cfg.json"), f"delete {folder} and run again"
        try:
            kind, sha256 = config["metadata"]["kind"], str(config["weights_sha256"])
            k = config["k"] if TRAITS[kind].is_topk else None
        except (KeyError, TypeError) as error:
            raise UserError(
                f"{folder / 'cfg.json'}: expected the description of a dictionary, found none "
                f"({error!r}); {again}"
            ) from None
        path = folder / "sae_weights.safetensors"
        return cls(kind, **read_tensors(path, sha256=sha256, remedy=again), k=k)


def _architecture(traits: Traits) -> str:
    """What SAELens calls it. TopK dictionaries of SAELens have inputs and outputs of one width."""
    if traits.has_skip:
        return "skip_transcoder" if traits.is_transcoder else "skip_sae"
    if traits.is_topk:
        return "topk"
    return "transcoder" if traits.is_transcoder else "standard"
