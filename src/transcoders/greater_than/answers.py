"""What a model answers to prompts that differ in a year, as it is and changed inside.

The study only needs the probability of some next tokens after the prompt. Where numbers are written
digit by digit, it also needs those after the prompt and each of the ten tens digits. So a row is
run in two parts. The **prefix** is run once, and its keys and values are kept. The **tail** is run
again for every change, from the first changed layer on:

    The war lasted from 1 7 3 2 to 1 │ 7   0 1 2 3 4 5 6 7 8 9
    prefix                             tail: last token, then ten alternatives for the next one

The alternatives stand at the same position. Each sees the prompt and itself but not the others, so
one pass gives the units digits after all ten tens digits. Only the candidates' rows of the
unembedding are used.
"""

from copy import copy
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from transcoders.greater_than.task import Numbers, Prompts
from transcoders.models import LanguageModel, captured, run_blocks, unembed


class Answers:
    """Prompts that went through a model once and can be run again from any layer on.

    Attributes:
        residual: the residual stream of the tail before each layer.
        tail: positions of the tail that belong to the prompt; the alternatives come after them.
    """

    @torch.no_grad()
    def __init__(
        self,
        model: LanguageModel,
        numbers: Numbers,
        prompts: Prompts,
        *,
        tail: int = 1,
        next_only: bool = False,
    ) -> None:
        """Run the prefix and the tail.

        Args:
            model: the language model.
            numbers: what the next tokens may be.
            prompts: of one length.
            tail: how many of the prompt's last positions may be changed later.
            next_only: leave out the alternatives, and ask for the next token alone.
        """
        from transformers import DynamicCache

        device = model.cfg.device
        self.model = model
        self.years = prompts.years
        self.tail = tail
        self._ids = numbers.ids.to(device)
        # Each of the ten tens digits needs a further token.
        self._n_alternatives = 0 if next_only or numbers.style == "pairs" else 10
        rows = prompts.rows.to(device)
        n_rows, n_prompt = rows.shape
        prefix, end = rows.split([n_prompt - tail, tail], dim=1)
        self._prefix = DynamicCache()
        if prefix.shape[1]:
            run_blocks(model, tokens=prefix, past_key_values=self._prefix, use_cache=True)
        alternatives = self._ids[: self._n_alternatives].expand(n_rows, -1)
        tokens = torch.cat([end, alternatives], dim=1)
        places = torch.arange(n_prompt + self._n_alternatives, device=device)
        seen = places <= places[:, None]
        seen &= (places < n_prompt) | (places == places[:, None])
        mask = torch.zeros(seen.shape, device=device).masked_fill(~seen, -torch.inf)
        # Only the tail asks; the alternatives all stand at the position after the prompt.
        positions = places.clamp(max=n_prompt)[n_prompt - tail :]
        self._arguments: dict[str, Any] = {
            "attention_mask": mask[n_prompt - tail :].expand(n_rows, 1, -1, -1),
            "position_ids": positions.expand(n_rows, -1),
            "use_cache": True,
        }
        names = [f"blocks.{layer}.hook_resid_pre" for layer in range(model.cfg.n_layers)]
        with captured(model, names, tokens.shape) as found:
            self._run(tokens=tokens)
        self.residual: list[Tensor] = [found[name] for name in names]

    def _run(self, **arguments: Any) -> Float[Tensor, "prompt position d_model"]:
        """Run the tail after the prefix.

        A run makes longer tensors for the cache that it is given, and leaves the shorter ones as
        they are. So it gets a cache of its own, without a copy of any tensor.
        """
        cache = copy(self._prefix)
        cache.layers = [copy(layer) for layer in self._prefix.layers]
        arguments |= self._arguments | {"past_key_values": cache}
        return run_blocks(self.model, **arguments)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and positions of what is run again."""
        n_rows, n_positions, _ = self.residual[0].shape
        return n_rows, n_positions

    @torch.no_grad()
    def probabilities(self, first_layer: int) -> Float[Tensor, "prompt continuation"]:
        """Probabilities of the 100 two-digit continuations, or of the next token alone.

        They sum to 1. Layers from ``first_layer`` on are run again, with the hooks that are set
        now.
        """
        normalized = self._run(residual=self.residual[first_layer], start=first_layer)
        logits = unembed(self.model, normalized[:, self.tail - 1 :], self._ids)
        p = logits.softmax(dim=-1).cpu()  # (prompt, after the prompt and each alternative, token)
        if not self._n_alternatives:
            return p[:, 0]
        return (p[:, 0, :, None] * p[:, 1:]).flatten(1)
