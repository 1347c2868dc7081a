"""Adam, applied to some rows of the parameters at a time."""

import torch
from torch import Tensor
from torch.optim.adam import adam

EPSILON = 1e-8


class AdamByRows:
    """PyTorch's own Adam, for parameters whose gradients come a block of rows at a time.

    A block's gradient can then be made, used and forgotten while it lies in the processor's cache.
    Every row is updated at every step, those without a gradient by their momentum.

    Attributes:
        steps: that were begun.
        first_moment: of every parameter: the running mean of its gradient.
        second_moment: the running mean of the gradient's square.
    """

    def __init__(self, parameters: dict[str, Tensor], betas: tuple[float, float]) -> None:
        self._parameters = parameters
        self._betas = betas
        self.steps = 0
        self.first_moment = {name: torch.zeros_like(p) for name, p in parameters.items()}
        self.second_moment = {name: torch.zeros_like(p) for name, p in parameters.items()}

    def begin_step(self) -> None:
        """Count a step; then :meth:`update` every row of every parameter once."""
        self.steps += 1

    def update(
        self, gradients: dict[str, Tensor], learning_rate: float, rows: slice = slice(None)
    ) -> None:
        """Update ``rows`` of the parameters that ``gradients`` names, by the gradients of those."""
        any_gradient = next(iter(gradients.values()))
        adam(
            [self._parameters[name][rows] for name in gradients],
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
