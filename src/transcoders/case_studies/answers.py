"""What a blind study answers: everything here is computed from the text, and little may be told.

The module :mod:`~transcoders.case_studies.harness` says which questions are answered and by which
rule. :class:`Answers` has a method for each of them.
"""

import re
from dataclasses import fields, replace
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from transcoders.checksums import sha256
from transcoders.circuits import Tracer, invariant
from transcoders.circuits.export import paths_record
from transcoders.circuits.notation import parse_head
from transcoders.circuits.paths import Search, find_paths
from transcoders.circuits.replacement import ActiveFeatures, LocalReplacementModel
from transcoders.circuits.vectors import feature_target
from transcoders.config import load_scale
from transcoders.errors import UserError
from transcoders.interpretability.gather import load_observed, load_text
from transcoders.layout import Layout
from transcoders.models import mlp_activations

ARROW = "<-"
FEATURE = re.compile(r"^tc(\d+)\[(\d+)\]$")
CONTEXT = 24
"""How many tokens are revealed before and after a place."""
EXAMPLE_COLUMNS = ["kind", "rank", "row", "position", "activation"]
QUESTIONS = ("examples", "activations", "circuit", "pull_back", "de_embedding", "direct_logits",
             "connections", "reveal")  # fmt: skip
Pairs = list[tuple[str, float]]
Records = list[dict[Any, Any]]


class Answers:
    """The text, the model and its transcoders, and one method for each of :data:`QUESTIONS`.

    Attributes:
        facts: what the analyst knows from the start.
        opening: what the transcript says of the study.
    """

    def __init__(self, scale: str, feature: str, *, restricted: bool, device: str) -> None:
        """Load everything; the arguments are those of the study.

        Raises:
            UserError: something is missing, or the feature cannot be studied.
        """
        layout = Layout(scale)
        settings = load_scale(layout.config)
        if settings.interpretability is None:
            raise UserError(f"{layout.config}: interpretability: this key is missing; a blind "
                            "study needs the text that it describes")  # fmt: skip
        model = settings.interpretability.rated_site.model
        tracer = Tracer.load(scale, model, device=device)
        self._replacement, self._tokenizer = tracer.replacement, tracer.tokenizer
        self._feature, self._restricted = feature, restricted
        layer, unit = self._known(feature, on_prompt=True)
        names = {entry.site.layer: entry.name for entry in settings.circuit_transcoders(model)}
        text, observed = load_text(layout.observed), load_observed(layout.observed, names[layer])
        self._rows = text.rows.long().to(device)
        self._examples = observed.examples.query("feature == @unit")[EXAMPLE_COLUMNS]
        self._silent = text.background[observed.background[:, unit] == 0]
        activity: Any = observed.features.set_index("feature").loc[unit]
        subject = {"feature": feature, "restricted": restricted, "dictionary": names[layer]}
        self.opening = {**subject, "text": sha256(layout.observed / "text.safetensors")}
        self.facts: dict[str, Any] = {
            **subject,
            "n_rows": len(self._rows),
            "row_length": self._rows.shape[1],
            "n_heads": self._replacement.n_heads,
            "first_position": self._replacement.first_position,
            "layers": list(self._replacement.transcoders),
            **activity[["frequency", "mean", "largest"]].to_dict(),
        }

    def examples(self) -> Records:
        """Rows, positions and activations of the feature's examples."""
        return self._examples.to_dict("records")

    def activations(self, row: int, feature: str | None = None) -> list[tuple[int, float]]:
        """How active a feature is at each position that transcoders were trained on.

        Args:
            row: a row of the text.
            feature: a name such as ``tc8[355]``; by default the feature that is studied.

        Returns:
            Pairs of a position and an activation.
        """
        layer, unit = self._known(feature or self._feature, on_prompt=True)
        found = mlp_activations(self._replacement.model, self._row(row)[None], [layer])
        z = self._replacement.transcoders[layer].encode(found[layer].mlp_in[0])[:, unit].tolist()
        return list(enumerate(z))[self._replacement.first_position :]

    def circuit(
        self, row: int, position: int, feature: str | None = None, **search: Any
    ) -> Records:
        """The paths of Algorithm 1 to a feature at a place, as ``paths.json`` holds them.

        Args:
            row: a row of the text. The model reads it up to ``position``.
            position: where the feature is active.
            feature: a name such as ``tc8[355]``; by default the feature that is studied.
            search: fields of :class:`~transcoders.circuits.paths.Search`. Heads have names such as
                ``attn5[6]``. The studies on record were made with positive paths, the default here.
        """
        layer, unit = self._known(feature or self._feature, on_prompt=True)
        if unknown := search.keys() - {part.name for part in fields(Search)}:
            raise UserError(f"{', '.join(sorted(unknown))}: a search has no such option")
        if search.get("heads") is not None:
            search["heads"] = [parse_head(head) for head in search["heads"]]
        local = self._replacement.freeze(self._row(row)[: position + 1])
        if self._restricted:
            local = layer_0_together(local)
        target = feature_target(local, layer, unit, position)
        return paths_record(find_paths(local, target, Search(**({"sign": "positive"} | search))))

    def pull_back(self, vector: str, through: str) -> str:
        """The name of what ``through``, a head or an earlier feature, reads to move a vector."""
        name = f" {ARROW} ".join(part.strip() for part in [*vector.split(ARROW), through])
        self._vector(name)
        return name

    def de_embedding(self, vector: str, k: int = 10, largest: bool = True) -> Pairs:
        """The tokens of the vocabulary that drive a vector most (or least), and how much."""
        found = self._vector(vector)[None]
        return self._words(invariant.de_embeddings(self._replacement, found, k, largest=largest))

    def direct_logits(self, feature: str, k: int = 10, largest: bool = True) -> Pairs:
        """The tokens whose logits a feature moves most (or least), and how much: DLA."""
        layer, unit = self._known(feature)
        writes = self._replacement.transcoders[layer].W_dec[unit][None]
        return self._words(invariant.direct_logits(self._replacement, writes, k, largest=largest))

    def connections(self, vector: str, layer: int, k: int = 10, largest: bool = True) -> Pairs:
        """The features of a layer that move a vector most (or least), and how much."""
        self._vector(f"{vector} {ARROW} tc{layer}[0]")  # refuses a layer that is not before it
        W_dec = self._replacement.transcoders[layer].W_dec
        best = invariant.best_products(self._vector(vector)[None], W_dec, k, largest=largest)
        return [(f"tc{layer}[{unit}]", value) for unit, value in best.pairs()[0]]

    def reveal(self, hypothesis: str) -> Records:
        """The examples with their texts, once it is written down what the feature is about."""
        if not re.search(r"\w", hypothesis):  # blanks and dashes explain nothing
            raise UserError("expected a hypothesis in words before anything is revealed")
        return [
            {**example, "text": self._marked_text(example["row"], example["position"])}
            for example in self.examples()
        ]

    def silent_texts(self) -> list[str]:
        """Texts around background tokens where the feature is silent, to score a hypothesis on."""
        return [self._marked_text(row, at) for row, at in self._silent.tolist()]

    def _row(self, row: int) -> Int[Tensor, " token"]:
        if not 0 <= row < len(self._rows):
            raise UserError(f"row {row}: expected one from 0 to {len(self._rows) - 1}")
        return self._rows[row]

    def _marked_text(self, row: int, at: int) -> str:
        """``before⟦peak⟧after``: a token between at most :data:`CONTEXT` others on each side."""
        ends = (max(at - CONTEXT, 0), at, at + 1, at + 1 + CONTEXT)
        parts = [self._row(row)[start:stop] for start, stop in pairwise(ends)]
        return "{}⟦{}⟧{}".format(*map(self._tokenizer.decode, parts))

    def _known(self, feature: str, *, on_prompt: bool = False) -> tuple[int, int]:
        """Layer and number of a feature, if the analyst may ask about it.

        Args:
            feature: a name such as ``tc8[355]``.
            on_prompt: whether the question is about the feature on a prompt.
        """
        found = FEATURE.fullmatch(feature.strip())
        if found is None:
            raise UserError(f"{feature!r}: expected a feature by its name alone, as in tc8[355]")
        layer, unit = int(found[1]), int(found[2])
        self._replacement.transcoder_of(layer, unit, feature)
        if self._restricted and on_prompt and layer == 0:
            raise UserError(f"{feature}: a restricted study hides what prompts make of layer 0")
        return layer, unit

    def _vector(self, name: str) -> Float[Tensor, " d_model"]:
        """The vector that a chain such as ``tc8[355] <- attn5[6] <- tc0[12]`` names.

        It is made of weights alone: attention, scales and activations count as 1.
        """
        replacement = self._replacement
        first, *others = (part.strip() for part in name.split(ARROW))
        layer, unit = self._known(first)
        vector = replacement.encoder_vectors(layer, torch.tensor([unit]))
        reads = replacement.mlp_reads[layer]
        for part in others:
            if part.startswith("attn"):
                layer, unit = parse_head(part)
                replacement.check_head(layer, unit)
                vector = invariant.through_head(replacement, vector, layer, unit)
                writes, next_reads = replacement.attention_writes, replacement.attention_reads
            else:
                layer, unit = self._known(part)
                strength = vector @ replacement.transcoders[layer].W_dec[unit]
                vector = strength * replacement.encoder_vectors(layer, torch.tensor([unit]))
                writes, next_reads = replacement.mlp_writes, replacement.mlp_reads
            if writes[layer] > reads:
                raise UserError(f"{name}: {part} writes nothing that is read there")
            reads = next_reads[layer]
        return vector[0]

    def _words(self, best: invariant.Best) -> Pairs:
        return [(self._tokenizer.decode([token]), value) for token, value in best.pairs()[0]]


def layer_0_together(local: LocalReplacementModel) -> LocalReplacementModel:
    """The same prompt, with what layer 0's features write at each token as a single part."""
    later = local.active.layer != 0
    mlp_out = local.mlp_out.clone()
    mlp_out[0] = local.passed.mlp.mlp_out[0] - local.error[0] - local.bias[0]
    kept = {part.name: getattr(local.active, part.name)[later] for part in fields(local.active)}
    return replace(local, active=ActiveFeatures(**kept), mlp_out=mlp_out)
