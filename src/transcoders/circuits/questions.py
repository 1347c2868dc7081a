"""What can be asked of a model, checked before anything slow runs.

A question is a prompt, a target and perhaps heads, layers and tokens. :class:`Bounds` says what
there is. It can be read from the files of a model and its transcoders without loading them.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transcoders.circuits.notation import FeatureName, LogitName, parse_target
from transcoders.config import Scale
from transcoders.errors import UserError
from transcoders.files import read_json
from transcoders.layout import Layout


@dataclass(frozen=True)
class Bounds:
    """How much of everything a model with transcoders has."""

    n_layers: int
    n_heads: int
    n_positions: int
    """Tokens that a prompt may have, BOS included."""
    n_features: Mapping[int, int]
    """Of the transcoder of each layer that has one."""

    @classmethod
    def of_scale(cls, scale: Scale, model: str) -> "Bounds":
        """Of a model of a scale, from its files.

        Raises:
            UserError: a file is missing or damaged.
        """
        from transformers import AutoConfig

        layout = Layout(scale.name)
        config = AutoConfig.from_pretrained(layout.model(model), local_files_only=True)
        widths = {}
        for entry in scale.circuit_transcoders(model):
            described = read_json(layout.dictionary(entry.name) / "cfg.json")
            known = isinstance(described, dict) and "d_sae" in described
            # Loading a file that is damaged says what is wrong with it.
            widths[entry.site.layer] = described["d_sae"] if known else sys.maxsize
        return cls(
            n_layers=config.num_hidden_layers,
            n_heads=config.num_attention_heads,
            n_positions=config.max_position_embeddings,
            n_features=widths,
        )

    def check_layer(self, layer: int) -> None:
        """Refuse a layer that the model does not have.

        Raises:
            UserError: there is no such layer.
        """
        if not 0 <= layer < self.n_layers:
            raise UserError(f"layer {layer}: expected one from 0 to {self.n_layers - 1}")

    def check_head(self, layer: int, head: int) -> None:
        """Refuse a head that the model does not have.

        Raises:
            UserError: there is no such layer or head.
        """
        if not (0 <= layer < self.n_layers and 0 <= head < self.n_heads):
            raise UserError(
                f"head attn{layer}[{head}]: expected a layer from 0 to {self.n_layers - 1} and a "
                f"head from 0 to {self.n_heads - 1}"
            )

    def check_attention(self, layer: int, head: int, query: int, key: int, n_tokens: int) -> None:
        """Refuse a head that there is not, or that cannot read a key from a query.

        Raises:
            UserError: a head or token does not exist, or the key comes after the query.
        """
        self.check_head(layer, head)
        query, key = position(query, n_tokens), position(key, n_tokens)
        if key > query:
            raise UserError(f"key {key}: expected a token from 0 to {query}, the query's")

    def check_feature(self, layer: int, unit: int, name: str) -> None:
        """Refuse a feature that no transcoder has. Errors begin with ``name``.

        Raises:
            UserError: there is no such transcoder or feature.
        """
        width = self.n_features.get(layer)
        if width is None or unit >= width:
            found = "no transcoder" if width is None else f"{width} features"
            known = ", ".join(map(str, sorted(self.n_features))) or "none"
            raise UserError(f"{name}: layer {layer} has {found}; layers with a transcoder: {known}")

    def check_length(self, n_tokens: int) -> None:
        """Refuse a prompt that is too long.

        Raises:
            UserError: the model has fewer positions.
        """
        if n_tokens > self.n_positions:
            raise UserError(
                f"prompt: {n_tokens} tokens, expected at most {self.n_positions}, the model's "
                "context; shorten it"
            )


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


def check_question(
    bounds: Bounds, tokenizer: Any, bos_id: int, prompt: str, target: str | None = None
) -> int:
    """Refuse a prompt or target that cannot be, and count the tokens of the prompt with BOS.

    Raises:
        UserError: something that they name does not exist.
    """
    n_tokens = len(read_prompt(prompt, tokenizer, bos_id))
    bounds.check_length(n_tokens)
    if target is not None:
        name = parse_target(target)
        position(name.token, n_tokens)
        if isinstance(name, FeatureName):
            bounds.check_feature(name.layer, name.unit or 0, f"target {target}")
        else:
            read_logits(target, name, tokenizer)
    return n_tokens
