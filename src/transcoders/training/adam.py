"""Adam for a dictionary whose decoder rows have unit norm.

Renormalising a row of ``W_dec`` after a step would undo what its gradient has parallel to the row.
So that part is removed before Adam sees the gradient (the released code does the same). Every row
is updated at every step: one without active entries moves by its momentum.
"""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.optim.adam import adam

from transcoders.dictionaries import SparseDictionary
from transcoders.dictionaries.loss import RowGradients

EPSILON = 1e-8
BLOCK_ENTRIES = {"cpu": 2**18, "cuda": 2**25}
"""Numbers of a matrix that are updated together: 1 MB on a CPU, for its caches."""


class DictionaryAdam:
    """Adam with projection and renormalisation of the decoder's rows.

    The transpose of ``W_enc`` must be contiguous, as :func:`initial_dictionary` makes it: both
    matrices are updated by rows of a feature each.

    Attributes:
        parameters: of the dictionary, by name. ``W_enc`` is transposed: a row a feature.
        steps: how many steps were made.
        first_moment: the running mean of each parameter's gradient.
        second_moment: the running mean of the gradient's square.

    Raises:
        ValueError: another layout of ``W_enc``.
    """

    def __init__(self, dictionary: SparseDictionary, betas: tuple[float, float]) -> None:
        if not dictionary.W_enc.T.is_contiguous():
            raise ValueError("W_enc: expected one whose transpose is contiguous")
        self._dictionary = dictionary
        self._betas = betas
        self.steps = 0
        self.parameters = {name: p.detach() for name, p in dictionary.named_parameters()}
        self.parameters["W_enc"] = self.parameters["W_enc"].T
        self.first_moment = {n: torch.zeros_like(p) for n, p in self.parameters.items()}
        self.second_moment = {n: torch.zeros_like(p) for n, p in self.parameters.items()}

    @torch.no_grad()
    def step(self, learning_rate: float, rows: RowGradients | None = None) -> None:
        """Update all parameters by their gradients, and clear the gradients.

        Args:
            learning_rate: of this step.
            rows: the gradients of ``W_enc`` and ``W_dec``, of a float32 dictionary on a CPU. None
                if they are in ``grad``.
        """
        self.steps += 1
        gradients = {
            name: parameter.grad
            for name, parameter in self._dictionary.named_parameters()
            if parameter.grad is not None
        }
        if rows is None:
            self._update_matrices(gradients.pop("W_enc").T, gradients.pop("W_dec"), learning_rate)
        else:
            self._update_matrices_from(rows, learning_rate)
        self._update(gradients, learning_rate)
        self._dictionary.zero_grad()

    def _update_matrices(self, W_enc: Tensor, W_dec: Tensor, learning_rate: float) -> None:
        """Update the matrices by whole gradients, a block of rows at a time."""
        # Multiples of 64, so that no block ends amid a vector of any processor.
        n_rows = max(BLOCK_ENTRIES[W_dec.device.type] // W_dec.shape[1] // 64, 1) * 64
        for start in range(0, len(W_dec), n_rows):
            here = slice(start, start + n_rows)
            row, gradient = self.parameters["W_dec"][here], W_dec[here]
            along = torch.linalg.vecdot(gradient, row)[:, None]
            gradient.addcmul_(row, along, value=-1)
            self._update({"W_enc": W_enc[here], "W_dec": gradient}, learning_rate, here)
            functional.normalize(row, dim=1, out=row)

    def _update_matrices_from(self, rows: RowGradients, learning_rate: float) -> None:
        """Update the matrices by entries, a row at a time, in compiled loops."""
        from transcoders.dictionaries import kernels

        entries = rows.entries
        tensors = [entries.start, entries.token, entries.value, rows.dz, rows.read, rows.r]
        for name in ("W_enc", "W_dec"):
            tensors += [d[name] for d in (self.parameters, self.first_moment, self.second_moment)]
        beta1, beta2 = self._betas
        step_size = learning_rate / (1 - beta1**self.steps)
        root_scale = 1 / math.sqrt(1 - beta2**self.steps)
        constants = (beta1, 1 - beta1, beta2, 1 - beta2, step_size, root_scale, EPSILON)
        kernels.in_threads(
            kernels.update_rows,
            len(self.parameters["W_dec"]),
            *(tensor.detach().numpy() for tensor in tensors),
            tuple(map(np.float32, constants)),
        )

    def _update(
        self, gradients: dict[str, Tensor], learning_rate: float, rows: slice = slice(None)
    ) -> None:
        """PyTorch's own Adam, on some rows of the parameters that ``gradients`` names."""
        any_gradient = next(iter(gradients.values()))
        adam(
            [self.parameters[name][rows] for name in gradients],
            list(gradients.values()),
            [self.first_moment[name][rows] for name in gradients],
            [self.second_moment[name][rows] for name in gradients],
            [],
            # PyTorch counts these up itself.
            [torch.tensor(self.steps - 1.0, device=any_gradient.device) for _ in gradients],
            fused=True,
            amsgrad=False,
            beta1=self._betas[0],
            beta2=self._betas[1],
            lr=learning_rate,
            weight_decay=0.0,
            eps=EPSILON,
            maximize=False,
        )
