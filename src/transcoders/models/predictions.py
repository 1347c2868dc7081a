"""What a model predicts, compared with what a changed one does, without holding all its logits.

With logits a of the unmodified model, b of the changed one, and L the logarithm of the sum of their
exponentials:

    CE = L(b) - b[next token]               KL = Σ p (a - b) + L(b) - L(a),   p = exp(a - L(a))

KL is written with differences, so that the same logits give exactly 0. The sums over the vocabulary
are made for some of its tokens at a time. On a CPU, their logits then stay in its caches, which
takes half the time.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from transcoders.models.forward import LanguageModel, unembed

CHUNK_TOKENS = {"cpu": 1024, "cuda": 2**15}
"""Tokens of the vocabulary whose logits are made at a time."""


class Predictions:
    """What the unmodified model predicts on one batch.

    Attributes:
        ce: cross entropy of the next tokens, summed over each row: (batch,), float64, in nats.
    """

    @torch.inference_mode()
    def __init__(
        self,
        model: LanguageModel,
        tokens: Int[Tensor, "batch position"],
        normalized: Float[Tensor, "batch position d_model"],
        *,
        first: int,
    ) -> None:
        """Predict at the positions from ``first`` to the last but one, which has a next token.

        Args:
            model: whose unembedding.
            tokens: that the model read.
            normalized: the residual stream after the final norm.
            first: the first position that counts.
        """
        self._model, self._first, self._rows = model, first, len(tokens)
        self._next = tokens[:, first + 1 :].flatten().long()
        self._logits = list(self._logits_in_chunks(normalized))
        sums = [logits.logsumexp(dim=1) for logits in self._logits]
        self._log_sum = torch.stack(sums).logsumexp(dim=0)
        self._p = [(logits - self._log_sum[:, None]).exp_() for logits in self._logits]
        self.ce = self._sum_by_row(self._log_sum - self._of_next_tokens(normalized))

    @torch.inference_mode()
    def of_changed(
        self, normalized: Float[Tensor, "batch position d_model"]
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
        """CE of a changed model and its KL divergence from the unmodified one, as ``ce``."""
        sums, kl = [], torch.zeros_like(self._log_sum)
        chunks = zip(self._logits, self._p, self._logits_in_chunks(normalized), strict=True)
        for own, p, logits in chunks:
            sums.append(logits.logsumexp(dim=1))
            kl -= logits.sub_(own).mul_(p).sum(dim=1)
        log_sum = torch.stack(sums).logsumexp(dim=0)
        kl += log_sum - self._log_sum
        ce = log_sum - self._of_next_tokens(normalized)
        return self._sum_by_row(ce), self._sum_by_row(kl)

    def _predicting(self, normalized: Tensor) -> Float[Tensor, "prediction d_model"]:
        return normalized[:, self._first : -1].flatten(0, 1)

    def _logits_in_chunks(self, normalized: Tensor) -> Iterator[Float[Tensor, "prediction chunk"]]:
        predicting, size = self._predicting(normalized), CHUNK_TOKENS[normalized.device.type]
        for start in range(0, self._model.W_U.shape[1], size):
            yield unembed(self._model, predicting, slice(start, start + size))

    def _of_next_tokens(self, normalized: Tensor) -> Float[Tensor, " prediction"]:
        # More products than are wanted: a hundredth of those with the whole vocabulary.
        return unembed(self._model, self._predicting(normalized), self._next).diagonal()

    def _sum_by_row(self, values: Float[Tensor, " prediction"]) -> Float[Tensor, " batch"]:
        return values.double().view(self._rows, -1).sum(dim=1).cpu()
