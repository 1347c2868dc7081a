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
    matrices are updated row by row, and a row belongs to a feature.

    Attributes:
        parameters: of the dictionary, by name. ``W_enc`` is transposed: features are rows.
        first_moment: the running mean of each parameter's gradient.
        second_moment: the running mean of the gradient's square.
    """

    def __init__(self, dictionary: SparseDictionary, betas: tuple[float, float]) -> None:
        self._betas = betas
        self.parameters = {name: p.detach() for name, p in dictionary.named_parameters()}
        self.parameters["W_enc"] = self.parameters["W_enc"].T
        self.first_moment = {n: torch.zeros_like(p) for n, p in self.parameters.items()}
        self.second_moment = {n: torch.zeros_like(p) for n, p in self.parameters.items()}

    def step(
        self,
        step: int,
        learning_rate: float,
        gradients: dict[str, Tensor],
        rows: RowGradients | None = None,
    ) -> None:
        """Update all parameters.

        Args:
            step: counted from 0.
            learning_rate: of this step.
            gradients: by parameter. They are overwritten.
            rows: the gradients of ``W_enc`` and ``W_dec``, if ``gradients`` lacks them.
        """
        if rows is not None and rows.r.device.type == "cpu":
            self._update_matrices_from(rows, step, learning_rate)
        else:
            gradients = gradients | (rows.added_up() if rows else {})
            self._update_matrices(
                gradients.pop("W_enc").T, gradients.pop("W_dec"), step, learning_rate
            )
        self._update(gradients, step, learning_rate)

    def _update_matrices(
        self, W_enc: Tensor, W_dec: Tensor, step: int, learning_rate: float
    ) -> None:
        """Update the matrices by whole gradients, a block of rows at a time."""
        # Multiples of 64, so that no block ends amid a vector of any processor.
        n_rows = max(BLOCK_ENTRIES[W_dec.device.type] // W_dec.shape[1] // 64, 1) * 64
        for start in range(0, len(W_dec), n_rows):
            here = slice(start, start + n_rows)
            row, gradient = self.parameters["W_dec"][here], W_dec[here]
            along = torch.linalg.vecdot(gradient, row)[:, None]
            gradient.addcmul_(row, along, value=-1)
            self._update({"W_enc": W_enc[here], "W_dec": gradient}, step, learning_rate, here)
            functional.normalize(row, dim=1, out=row)

    def _update_matrices_from(self, rows: RowGradients, step: int, learning_rate: float) -> None:
        """Update float32 matrices by active entries, a row at a time, in compiled loops."""
        from transcoders.dictionaries import kernels

        entries = rows.entries
        tensors = [entries.start, entries.token, entries.value, rows.dz, rows.read, rows.r]
        for name in ("W_enc", "W_dec"):
            tensors += [d[name] for d in (self.parameters, self.first_moment, self.second_moment)]
        beta1, beta2 = self._betas
        step_size = learning_rate / (1 - beta1 ** (step + 1))
        root_scale = 1 / math.sqrt(1 - beta2 ** (step + 1))
        constants = (beta1, 1 - beta1, beta2, 1 - beta2, step_size, root_scale, EPSILON)
        kernels.in_threads(
            kernels.update_rows,
            len(self.parameters["W_dec"]),
            *(tensor.numpy() for tensor in tensors),
            tuple(map(np.float32, constants)),
        )

    def _update(
        self,
        gradients: dict[str, Tensor],
        step: int,
        learning_rate: float,
        rows: slice = slice(None),
    ) -> None:
        """PyTorch's own Adam, on some rows of the parameters that ``gradients`` names."""
        steps = [torch.tensor(float(step), device=g.device) for g in gradients.values()]
        adam(
            [self.parameters[name][rows] for name in gradients],
            list(gradients.values()),
            [self.first_moment[name][rows] for name in gradients],
            [self.second_moment[name][rows] for name in gradients],
            [],
            steps,  # PyTorch counts these up itself
            fused=True,
            amsgrad=False,
            beta1=self._betas[0],
            beta2=self._betas[1],
            lr=learning_rate,
            weight_decay=0.0,
            eps=EPSILON,
            maximize=False,
        )
