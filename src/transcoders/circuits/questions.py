"""What a question says in text, as positions and tokens of a model."""

from typing import Any

from transcoders.circuits.notation import LogitName
from transcoders.errors import UserError


def position(token: int, n_tokens: int) -> int:
    """The position of a token that may be counted from the end.

    Raises:
        UserError: the prompt has no such token.
    """
    found = token + n_tokens if token < 0 else token
    if not 0 <= found < n_tokens:
        raise UserError(
            f"token {token}: expected one from {-n_tokens} to {n_tokens - 1}, since the prompt has "
            f"{n_tokens} tokens with BOS"
        )
    return found


def read_prompt(prompt: str, tokenizer: Any, bos_id: int) -> list[int]:
    """The tokens of a prompt, with BOS before it.

    Raises:
        UserError: the prompt is empty or names BOS itself.
    """
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    if not ids:
        raise UserError("prompt: expected some text, found none")
    if bos_id in ids:
        raise UserError(
            f"prompt: expected text without {tokenizer.decode([bos_id])}, which is put before "
            "every prompt; leave it out"
        )
    return [bos_id, *ids]


def read_logits(text: str, name: LogitName, tokenizer: Any) -> dict[int, float]:
    """The weights of a target's logits, by token id.

    Raises:
        UserError: a term is not one token.
    """
    weights: dict[int, float] = {}
    for weight, word in name.terms:
        ids = tokenizer(word, add_special_tokens=False)["input_ids"]
        if len(ids) != 1:
            raise UserError(
                f"target {text}: {word!r} is {len(ids)} tokens "
                f"({', '.join(repr(tokenizer.decode([i])) for i in ids)}), expected one"
            )
        weights[ids[0]] = weights.get(ids[0], 0.0) + weight
    return weights
