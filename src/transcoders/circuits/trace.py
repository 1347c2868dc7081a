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
from transcoders.circuits.replacement import LocalReplacementModel, ReplacementModel
from transcoders.circuits.vectors import Target, feature_target, logit_target
from transcoders.config import load_scale
from transcoders.dictionaries import SparseDictionary
from transcoders.errors import UserError
from transcoders.layout import Layout
from transcoders.models import load_model, load_tokenizer, mlp_activations

Notes = dict[str, list[tuple[str, list[tuple[str, str]]]]]
"""By feature: lists of a title and rows of text and value."""


@dataclass(frozen=True)
class Circuit:
    """Why a target has the value it has on a prompt."""

    local: LocalReplacementModel
    target: Target
    tokens: list[str]
    """Of the prompt with BOS, as texts."""
    paths: list[ComputationalPath]
    graph: nx.DiGraph

    def table(self, n: int = 15) -> str:
        """The strongest paths, a line each: attribution and nodes from the target back."""
        return "\n".join(f"{path.attribution:+9.3f}  {path}" for path in strongest(self.paths, n))


class Tracer:
    """A model with its transcoders and tokenizer, ready to be asked.

    Attributes:
        circuit: the model with its transcoders.
        tokenizer: of the model.
        bos_id: the token at position 0.
    """

    def __init__(self, circuit: ReplacementModel, tokenizer: Any, bos_id: int) -> None:
        self.circuit = circuit
        self.tokenizer = tokenizer
        self.bos_id = bos_id

    @classmethod
    def load(cls, scale: str, model: str | None = None, *, device: str = "cpu") -> "Tracer":
        """Load a model of a scale with its headline transcoders.

        Args:
            scale: name of a file in ``config/``, whose results are there.
            model: name of one of its models; the first if not given.
            device: ``cpu`` or ``cuda``.

        Raises:
            UserError: something is missing or damaged.
        """
        layout = Layout(scale)
        settings = load_scale(layout.config)
        name = model or next(iter(settings.models))
        folder = layout.model(name)
        entry = settings.model(name)
        transcoders = {
            dictionary.site.layer: SparseDictionary.from_pretrained(
                layout.dictionary(dictionary.name)
            ).to(device)
            for dictionary in settings.circuit_transcoders(name)
        }
        tokenizer = load_tokenizer(folder)
        circuit = ReplacementModel(
            load_model(folder, device=device),
            transcoders,
            first_position=settings.corpus.first_train_position,
        )
        return cls(circuit, tokenizer, tokenizer.convert_tokens_to_ids(entry.bos_token))

    def freeze(self, prompt: str) -> LocalReplacementModel:
        """Run a prompt, with BOS before it, and keep what attribution holds fixed."""
        ids = self.tokenizer(prompt, add_special_tokens=False)["input_ids"]
        device = self.circuit.W_O.device
        return self.circuit.freeze(torch.tensor([self.bos_id, *ids], device=device))

    def target(self, local: LocalReplacementModel, text: str) -> Target:
        """The target that a text such as ``tc10[5315]@8`` or ``logit[ 40]@-1`` names.

        Raises:
            UserError: it names nothing that there is.
        """
        name = parse_target(text)
        if isinstance(name, FeatureName):
            index = name.unit
            if index is None:
                index = self._most_active(local, name)
            return feature_target(local, name.layer, index, name.token)
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
        local = self.freeze(prompt)
        explained = self.target(local, target)
        paths = find_paths(local, explained, search or Search())
        tokens = [self.tokenizer.decode([token]) for token in local.passed.tokens.tolist()]
        return Circuit(local, explained, tokens, paths, build_graph(paths))

    def notes(self, nodes: list[Node], rows: Int[Tensor, "row token"], k: int = 6) -> Notes:
        """What is known of each feature among some nodes: weights alone, and a text.

        Args:
            nodes: others than features are skipped.
            rows: of text, to look up where each feature is most active.
            k: entries of each list.
        """
        wanted = {
            layer: torch.tensor(sorted(units), device=rows.device)
            for layer in self.circuit.transcoders
            if (units := {n.unit for n in nodes if n.kind == "feature" and n.layer == layer})
        }
        activations = self._activations_on(rows, wanted)
        notes: Notes = {}
        for layer, features in wanted.items():
            reads = self.circuit.encoder_vectors(layer, features)
            writes = self.circuit.transcoders[layer].W_dec[features]
            drivers = de_embeddings(self.circuit, reads, k)
            raised = direct_logits(self.circuit, writes, k)
            for number, unit in enumerate(features.tolist()):
                examples = self._strongest(activations[layer][:, :, number], rows, k)
                notes[f"tc{layer}[{unit}]"] = [
                    ("Text where it is most active", examples),
                    ("De-embedding: embeddings that drive it", self._rows(drivers, number)),
                    ("Logits it raises (DLA)", self._rows(raised, number)),
                ]
        return notes

    def _rows(self, best: Best, number: int) -> list[tuple[str, str]]:
        tokens, values = best.indices[number].tolist(), best.values[number].tolist()
        return [
            (self.tokenizer.decode([token]), f"{value:.2f}")
            for token, value in zip(tokens, values, strict=True)
        ]

    def _activations_on(
        self, rows: Int[Tensor, "row token"], wanted: dict[int, Int[Tensor, " feature"]]
    ) -> dict[int, Float[Tensor, "row position feature"]]:
        """How active some features of each layer are, from the first position on."""
        first = self.circuit.first_position
        parts: dict[int, list[Tensor]] = {layer: [] for layer in wanted}
        for batch in rows.split(8) if wanted else []:
            found = mlp_activations(self.circuit.model, batch, list(wanted))
            for layer, features in wanted.items():
                z = self.circuit.transcoders[layer].encode(found[layer].mlp_in[:, first:])
                parts[layer].append(z[:, :, features])
        return {layer: torch.cat(batches) for layer, batches in parts.items()}

    def _strongest(
        self, z: Float[Tensor, "row position"], rows: Int[Tensor, "row token"], k: int
    ) -> list[tuple[str, str]]:
        """The tokens where a feature is most active, each after a few before it."""
        first = self.circuit.first_position
        best = z.flatten().topk(min(k, z.numel()))
        lines = []
        for value, place in zip(best.values.tolist(), best.indices.tolist(), strict=True):
            row, position = divmod(place, z.shape[1])
            end = position + first + 1
            text = self.tokenizer.decode(rows[row, max(end - 6, first) : end])
            if value > 0:
                lines.append((text.replace("\n", "⏎"), f"{value:.2f}"))
        return lines

    def _most_active(self, local: LocalReplacementModel, name: FeatureName) -> int:
        position, active = local.position(name.token), local.active
        here = (active.token == position) & (active.layer == name.layer)
        if not here.any():
            known = ", ".join(str(layer) for layer in self.circuit.transcoders)
            raise UserError(
                f"target tc{name.layer}[top]@{name.token}: no feature of layer {name.layer} is "
                f"active there; layers with a transcoder: {known}; tokens: from "
                f"{self.circuit.first_position} to {local.n_tokens - 1}"
            )
        return int(active.unit[here][active.z[here].argmax()])
