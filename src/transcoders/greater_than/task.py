"""The greater-than task: prompts, how a tokenizer writes numbers, and the metric.

"The war lasted from 1732 to 17" should go on with two digits that make a later year. The model's
probabilities of the 100 two-digit continuations YY', renormalised, give the **metric** of a prompt
with year YY (Hanna et al. 2023, arXiv 2305.00586; paper, section 5):

    Σ over YY' > YY of p(YY')  -  Σ over YY' <= YY of p(YY')

from -1 to 1. A tokenizer may write a two-digit number as one token (GPT-2, Pythia) or as two digits
(Llama, SmolLM2). Then p(YY') = p(tens) p(units | tens), each renormalised over the ten digits.
"""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from transcoders.errors import UserError

YEARS = torch.arange(100)
AVERAGED_YEARS = slice(1, 99)
"""The years of the published mean. No year is greater than 99, and GPT-2 writes 1700 as one token,
so the prompt of 00 is shorter than the others."""
PLACEHOLDER = "{YY}"


@dataclass(frozen=True)
class Numbers:
    """How a tokenizer writes the two digits that complete a year."""

    ids: Int[Tensor, " candidate"]
    """Ids of the tokens 00 to 99, or 0 to 9."""

    @classmethod
    def of(cls, tokenizer: Any) -> "Numbers":
        """Find out for a tokenizer.

        Raises:
            UserError: neither all pairs of digits nor all digits are single tokens.
        """
        for texts in ([f"{year:02d}" for year in range(100)], [str(d) for d in range(10)]):
            # The last token: some tokenizers put a space before the first word of a text.
            ids = [
                token
                for text in texts
                for token in tokenizer(text, add_special_tokens=False)["input_ids"][-1:]
            ]
            decoded = [tokenizer.decode([token]).strip() for token in ids]
            if decoded == texts:
                return cls(torch.tensor(ids))
        raise UserError(
            "greater_than: expected a tokenizer with a token for every two-digit number, or for "
            f"every digit; found that it writes 0 to 9 as {decoded}; choose another model"
        )

    @property
    def style(self) -> Literal["pairs", "digits"]:
        """Whether two digits are one token or two."""
        return "pairs" if len(self.ids) == 100 else "digits"

    def read(self, years: Int[Tensor, " prompt"]) -> Int[Tensor, " prompt"]:
        """The number that each year gives for the next token: itself, or its tens digit."""
        return years if self.style == "pairs" else years // 10

    def signs(self, years: Int[Tensor, " prompt"]) -> Float[Tensor, "prompt candidate"]:
        """1 for next tokens that make a later year, -1 for those that do not.

        0 for the tens digit of the year itself, after which the units decide.
        """
        difference = torch.arange(len(self.ids)) - self.read(years)[:, None]
        if self.style == "pairs":
            return (difference > 0).float() * 2 - 1
        return difference.sign().float()

    def contrast(self, year: int) -> dict[int, float] | None:
        """Mean logit of the next tokens that make a later year minus that of those that do not.

        Returns:
            Weights by token id, or None for a year that has no token of one of the two.
        """
        signs = self.signs(torch.tensor([year]))[0]
        greater, other = signs > 0, signs < 0
        if not (greater.any() and other.any()):
            return None
        weights = greater / greater.sum() - other / other.sum()
        return {
            token: weight
            for token, weight in zip(self.ids.tolist(), weights.tolist(), strict=True)
            if weight
        }


class Prompts(NamedTuple):
    """Prompts of one template that have the same number of tokens."""

    template: int
    """The number of the template."""
    years: Int[Tensor, " prompt"]
    rows: Int[Tensor, "prompt position"]
    """Tokens, BOS first."""
    year_token: int
    """The position of the year's token, or of its tens digit."""


def make_prompts(templates: list[str], tokenizer: Any, bos_id: int) -> list[Prompts]:
    """All 100 prompts of every template, those of equal length together.

    Args:
        templates: texts with :data:`PLACEHOLDER` where the year's last two digits go.
        tokenizer: a fast one, which knows where each token comes from.
        bos_id: the token at position 0.
    """
    groups: dict[tuple[int, int, int], list[tuple[int, list[int]]]] = {}
    for number, template in enumerate(templates):
        place = template.index(PLACEHOLDER)
        for year in range(100):
            encoded = tokenizer(
                template.replace(PLACEHOLDER, f"{year:02d}"),
                add_special_tokens=False,
                return_offsets_mapping=True,
            )
            spans = encoded["offset_mapping"]
            token = next(i for i, (start, end) in enumerate(spans) if start <= place < end)
            ids = [bos_id, *encoded["input_ids"]]
            groups.setdefault((number, len(ids), token + 1), []).append((year, ids))
    return [
        Prompts(number, torch.tensor([y for y, _ in rows]), torch.tensor([r for _, r in rows]), at)
        for (number, _, at), rows in groups.items()
    ]


def metric(
    probabilities: Float[Tensor, "prompt 100"], years: Int[Tensor, " prompt"]
) -> Float[Tensor, " prompt"]:
    """The metric of each prompt, from the probabilities of its 100 continuations."""
    greater = years[:, None] < YEARS
    return torch.where(greater, probabilities, -probabilities).sum(dim=1)
