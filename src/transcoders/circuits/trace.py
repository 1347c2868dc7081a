"""From a prompt and a target, as texts, to a circuit."""

from dataclasses import dataclass
from typing import Any

import networkx as nx
import torch

from transcoders.circuits.graph import build_graph
from transcoders.circuits.notation import FeatureName, parse_target
from transcoders.circuits.paths import ComputationalPath, Search, find_paths, strongest
from transcoders.circuits.replacement import LocalReplacementModel, ReplacementModel
from transcoders.circuits.vectors import Target, feature_target, logit_target
from transcoders.config import load_scale
from transcoders.dictionaries import SparseDictionary
from transcoders.errors import UserError
from transcoders.layout import Layout
from transcoders.models import load_model, load_tokenizer


@dataclass(frozen=True)
class Circuit:
    """Why a target has the value it has on a prompt."""

    prompt: str
    search: Search
    local: LocalReplacementModel
    target: Target
    tokens: list[str]
    """The tokens of the prompt with BOS, as texts."""
    paths: list[ComputationalPath]
    graph: nx.DiGraph

    def table(self, n: int = 15) -> str:
        """The strongest paths, one on each line: attribution, then nodes from the target back."""
        return "\n".join(f"{path.attribution:+9.3f}  {path}" for path in strongest(self.paths, n))


@dataclass(frozen=True)
class Tracer:
    """A model with its transcoders and tokenizer. It answers questions about prompts."""

    replacement: ReplacementModel
    tokenizer: Any
    bos_id: int
    """The token at position 0."""

    @classmethod
    def load(cls, scale: str, model: str | None = None, *, device: str = "cpu") -> "Tracer":
        """Load a model of a scale with its headline transcoders.

        Args:
            scale: name of a file in ``config/``. Its dictionaries must have been trained.
            model: name of one of its models; the first one by default.
            device: ``cpu`` or ``cuda``.

        Raises:
            UserError: something is missing or damaged.
        """
        layout = Layout(scale)
        settings = load_scale(layout.config)
        name = model or next(iter(settings.models))
        bos_token = settings.model(name).bos_token  # refuses a name that is not there
        transcoders = {
            entry.site.layer: SparseDictionary.from_pretrained(layout.dictionary(entry.name))
            for entry in settings.circuit_transcoders(name)
        }
        tokenizer = load_tokenizer(layout.model(name))
        replacement = ReplacementModel(
            load_model(layout.model(name), device=device),
            {layer: transcoder.to(device) for layer, transcoder in transcoders.items()},
            first_position=settings.corpus.first_train_position,
        )
        return cls(replacement, tokenizer, tokenizer.convert_tokens_to_ids(bos_token))

    def freeze(self, prompt: str) -> LocalReplacementModel:
        """Run a prompt, with BOS before it, and keep what attribution holds fixed.

        Raises:
            UserError: the prompt is empty or too long, or names BOS itself.
        """
        ids = self.tokenizer(prompt, add_special_tokens=False)["input_ids"]
        if not ids:
            raise UserError("prompt: expected some text, found none")
        if self.bos_id in ids:
            raise UserError(
                f"prompt: expected text without {self.tokenizer.decode([self.bos_id])}, which is "
                "put before every prompt; leave it out"
            )
        tokens = torch.tensor([self.bos_id, *ids], device=self.replacement.W_O.device)
        return self.replacement.freeze(tokens)

    def target(self, local: LocalReplacementModel, text: str) -> Target:
        """The target that a text such as ``tc10[5315]@8`` or ``logit[ 40]@-1`` names.

        Raises:
            UserError: there is nothing of this name, or a logit is not that of one token.
        """
        name = parse_target(text)
        if isinstance(name, FeatureName):
            return feature_target(local, *name)
        weights: dict[int, float] = {}
        for weight, word in name.terms:
            ids = self.tokenizer(word, add_special_tokens=False)["input_ids"]
            if len(ids) != 1:
                raise UserError(
                    f"target {text}: {word!r} is {len(ids)} tokens "
                    f"({', '.join(repr(self.tokenizer.decode([i])) for i in ids)}), expected one"
                )
            weights[ids[0]] = weights.get(ids[0], 0.0) + weight
        return logit_target(local, weights, name.token, name=text)

    def trace(self, prompt: str, target: str, search: Search | None = None) -> Circuit:
        """Find the circuit of a target on a prompt."""
        local, search = self.freeze(prompt), search or Search()
        explained = self.target(local, target)
        paths = find_paths(local, explained, search)
        tokens = [self.tokenizer.decode([token]) for token in local.passed.tokens.tolist()]
        return Circuit(prompt, search, local, explained, tokens, paths, build_graph(paths))
