"""The inputs and outputs of one MLP over a few thousand rows, held in memory."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from transcoders.activations.statistics import Statistics, rounded_activations
from transcoders.models import LanguageModel, MLPActivations, mlp_activations
from transcoders.progress import progress_bar


@dataclass
class ActivationsInMemory:
    """What a dictionary is trained on, without files: for notebooks and small experiments."""

    mlp_in: Float[Tensor, "tokens d_model"]
    mlp_out: Float[Tensor, "tokens d_model"]
    read_ahead: ClassVar[bool] = False

    @classmethod
    def of(
        cls,
        model: LanguageModel,
        tokens: Int[Tensor, "row position"],
        layer: int,
        *,
        first_position: int = 1,
        batch_rows: int = 16,
    ) -> "ActivationsInMemory":
        """Run a model over rows of tokens and keep what enters and leaves one MLP.

        Args:
            model: of :func:`~transcoders.models.load_model`.
            tokens: rows that begin with BOS.
            layer: of the MLP.
            first_position: earlier positions are left out: 1 leaves out BOS.
            batch_rows: rows in a forward pass.
        """
        parts: list[MLPActivations] = []
        with progress_bar(tokens.numel(), f"activations of layer {layer}") as bar:
            for batch in tokens.split(batch_rows):
                both = mlp_activations(model, batch, [layer])[layer]
                parts.append(rounded_activations(both, first_position, torch.float32))
                bar.update(batch.numel())
        # Copies, since autograd cannot use the tensors of inference mode.
        return cls(*(torch.cat(tensors).clone() for tensors in zip(*parts, strict=True)))

    @property
    def n_tokens(self) -> int:
        """Number of tokens."""
        return len(self.mlp_in)

    @property
    def d_model(self) -> int:
        """Width of both vectors."""
        return self.mlp_in.shape[1]

    @property
    def statistics(self) -> Statistics:
        """Means over all tokens."""
        means = (self.mlp_in.mean(dim=0), self.mlp_out.mean(dim=0))
        return Statistics(*means, self.mlp_in.norm(dim=1).mean(), self.mlp_out.norm(dim=1).mean())

    def read(self, start: int, stop: int) -> MLPActivations:
        """Tokens ``start`` to ``stop`` (exclusive), of shape (tokens, d_model)."""
        return MLPActivations(self.mlp_in[start:stop], self.mlp_out[start:stop])
