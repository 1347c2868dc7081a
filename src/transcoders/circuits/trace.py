"""From a prompt and a target to a circuit, and what is known of its features."""

from dataclasses import dataclass
from typing import Any

import networkx as nx
import torch
from jaxtyping import Float, Int
from torch import Tensor

from transcoders.circuits.graph import build_graph
from transcoders.circuits.invariant import Best, de_embeddings, direct_logits
from transcoders.circuits.notation import FeatureName, Node, parse_target
from transcoders.circuits.paths import ComputationalPath, Search, find_paths, strongest
from transcoders.circuits.questions import read_logits, read_prompt
from transcoders.circuits.replacement import LocalReplacementModel, ReplacementModel
from transcoders.circuits.vectors import Target, feature_target, logit_target
from transcoders.config import load_scale
from transcoders.context import in_context, one_line
from transcoders.dictionaries import SparseDictionary
from transcoders.layout import Layout
from transcoders.models import load_model, load_tokenizer, mlp_activations

Notes = dict[str, list[tuple[str, list[tuple[str, str]]]]]
"""Lists to show with each feature: a title, and rows of a text and a value."""
Activations = dict[int, tuple[Int[Tensor, " feature"], Float[Tensor, "row position feature"]]]
"""By layer: some features, and how active each is on a text."""


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
        ids = read_prompt(prompt, self.tokenizer, self.bos_id)
        return self.replacement.freeze(torch.tensor(ids, device=self.replacement.W_O.device))

    def target(self, local: LocalReplacementModel, text: str) -> Target:
        """The target that a text such as ``tc10[5315]@8`` or ``logit[ 40]@-1`` names.

        Raises:
            UserError: there is nothing of this name.
        """
        name = parse_target(text)
        if isinstance(name, FeatureName):
            return feature_target(local, *name)
        weights = read_logits(text, name, self.tokenizer)
        return logit_target(local, weights, name.token, name=text)

    def trace(self, prompt: str, target: str, search: Search | None = None) -> Circuit:
        """Find the circuit of a target on a prompt."""
        local, search = self.freeze(prompt), search or Search()
        explained = self.target(local, target)
        paths = find_paths(local, explained, search)
        tokens = [self.tokenizer.decode([token]) for token in local.passed.tokens.tolist()]
        return Circuit(prompt, search, local, explained, tokens, paths, build_graph(paths))

    def notes(self, activations: Activations, rows: Int[Tensor, "row token"], k: int = 6) -> Notes:
        """What is known of some features, from weights alone and from a text.

        Args:
            activations: of the features, on the text.
            rows: of the text.
            k: entries of each list.
        """
        notes: Notes = {}
        for layer, (features, z) in activations.items():
            reads = self.replacement.encoder_vectors(layer, features)
            writes = self.replacement.transcoders[layer].W_dec[features]
            drivers = self._words(de_embeddings(self.replacement, reads, k))
            raised = self._words(direct_logits(self.replacement, writes, k))
            for number, unit in enumerate(features.tolist()):
                notes[f"tc{layer}[{unit}]"] = [
                    ("Text where it is most active", self._strongest(z[:, :, number], rows, k)),
                    ("De-embedding: embeddings that drive it", drivers[number]),
                    ("Logits it raises (DLA)", raised[number]),
                ]
        return notes

    def _words(self, best: Best) -> list[list[tuple[str, str]]]:
        """For each row the tokens, as texts, with their values."""
        return [[(self.tokenizer.decode([i]), f"{x:.2f}") for i, x in row] for row in best.pairs()]

    def activations_on(self, rows: Int[Tensor, "row token"], nodes: list[Node]) -> Activations:
        """How active the features among some nodes are on a text, from the first position on."""
        first = self.replacement.first_position
        wanted = {
            layer: torch.tensor(sorted(units), device=rows.device)
            for layer in self.replacement.transcoders
            if (units := {n.unit for n in nodes if n.kind == "feature" and n.layer == layer})
        }
        parts: dict[int, list[Tensor]] = {layer: [] for layer in wanted}
        for batch in rows.split(8) if wanted else []:
            found = mlp_activations(self.replacement.model, batch, list(wanted))
            for layer, features in wanted.items():
                z = self.replacement.transcoders[layer].encode(found[layer].mlp_in[:, first:])
                parts[layer].append(z[:, :, features])
        return {layer: (wanted[layer], torch.cat(batches)) for layer, batches in parts.items()}

    def _strongest(
        self, z: Float[Tensor, "row position"], rows: Int[Tensor, "row token"], k: int
    ) -> list[tuple[str, str]]:
        """The tokens where a feature is most active, each after a few before it."""
        best = z.flatten().topk(min(k, z.numel()))
        lines = []
        for value, place in zip(best.values.tolist(), best.indices.tolist(), strict=True):
            row, position = divmod(place, z.shape[1])
            tokens = rows[row, self.replacement.first_position :].tolist()
            if value > 0:
                context = in_context(self.tokenizer, tokens, position, before=5)
                lines.append((one_line("".join(context)), f"{value:.2f}"))
        return lines
