"""What keeps the text of a blind study, in a process of its own, and answers what may be known.

:func:`main` is that process: lines of JSON in, lines of JSON out. The module
:mod:`~transcoders.case_studies.harness`, the analyst's side, tells what is answered and what is
refused.
"""

import json
import math
import os
import re
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import torch
from jaxtyping import Float, Int
from pydantic import ConfigDict, Field, ValidationError, validate_call
from torch import Tensor

from transcoders.case_studies.transcript import OPENED, Transcript
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
from transcoders.process import prepare_process

DIGITS = 6
"""Of numbers in answers, as in the tables."""
ARROW = "<-"
FEATURE = re.compile(r"^tc(\d+)\[(\d+)\]$")
CONTEXT = 24
"""Tokens before and after a place whose text is revealed."""
EXAMPLE_COLUMNS = ["kind", "rank", "row", "position", "activation"]
FromZero = Annotated[int, Field(ge=0)]
FromOne = Annotated[int, Field(ge=1)]
Pairs = list[tuple[str, float]]
Records = list[dict[str, Any]]
QUESTIONS = ("examples", "activations", "circuit", "pull_back", "de_embedding", "direct_logits",
             "connections", "reveal")  # fmt: skip


class RefusedError(UserError):
    """A question that a blind study does not answer, or not in this form."""


class StudyServer:
    """Keeps the text, and answers what a blind analyst may know.

    Attributes:
        facts: what the analyst knows from the start.
        folder: of the feature's transcoder.
    """

    def __init__(
        self, scale: str, feature: str, *, restricted: bool, transcript: Path, device: str
    ) -> None:
        """Load the rated model with its transcoders and the text, and begin the transcript.

        Args:
            scale: name of a file in ``config/``, whose results are there.
            feature: of a headline transcoder, such as ``tc20[665]``.
            restricted: whether to hide what prompts make of layer 0's features, too.
            transcript: a file that does not exist yet.
            device: ``cpu`` or ``cuda``.

        Raises:
            UserError: something is missing, the feature cannot be studied, or the transcript
                exists.
        """
        self._transcript = Transcript(transcript)
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
        self.folder = layout.dictionary(names[layer])
        text, observed = load_text(layout.observed), load_observed(layout.observed, names[layer])
        self._rows = text.rows.long().to(device)
        self._examples = observed.examples.query("feature == @unit")[EXAMPLE_COLUMNS]
        self._silent = text.background[observed.background[:, unit] == 0]
        subject = {"feature": feature, "restricted": restricted, "dictionary": names[layer]}
        n_rows, row_length = text.rows.shape
        sizes = {
            "n_rows": n_rows, "row_length": row_length, "n_heads": self._replacement.n_heads,
            "first_position": self._replacement.first_position,
            "layers": list(self._replacement.transcoders),
        }  # fmt: skip
        activity = observed.features.set_index("feature")[["frequency", "mean", "largest"]]
        self.facts: dict[str, Any] = _rounded({**subject, **sizes, **activity.loc[unit].to_dict()})
        digest = sha256(layout.observed / "text.safetensors")
        self._transcript.add(OPENED, {**subject, "text": digest}, answer=self.facts)

    def ask(self, question: str, /, **arguments: Any) -> Any:
        """Answer a question as JSON, once it is on record.

        Raises:
            RefusedError: the question is not answered.
            OSError: it cannot be recorded, so it is not answered.
        """
        if self._transcript.is_sealed:
            raise RefusedError("the study is sealed: nothing more is answered or recorded")
        answer, refused = None, None
        try:
            if question not in QUESTIONS:
                known = ", ".join(QUESTIONS)
                raise UserError(f"a blind study does not answer this; it answers {known}")
            checked = validate_call(config=ConfigDict(strict=True))(getattr(self, question))
            answer = _rounded(checked(**arguments))
        except ValidationError as error:
            refused = f"{question}: {problems(error)}"
        except UserError as error:
            refused = f"{question}: {error}"
        except Exception as error:  # its message might hold tokens
            refused = f"{question}: failed with {type(error).__name__}"
        digest = self._transcript.add(question, arguments, answer=answer, refused=refused)
        if refused is not None:
            raise RefusedError(refused)
        return {"examples": answer, "seal": digest} if self._transcript.is_sealed else answer

    def examples(self) -> Records:
        """Rows, positions and activations of the feature's examples."""
        rows = self._examples.itertuples(index=False, name=None)
        return [dict(zip(EXAMPLE_COLUMNS, row, strict=True)) for row in rows]

    def activations(self, row: FromZero, feature: str | None = None) -> list[tuple[int, float]]:
        """Positions, from the first with transcoders on, and activations of a feature there.

        Args:
            row: of the text.
            feature: such as ``tc8[355]``; by default the one that is studied.
        """
        layer, unit = self._known(feature or self._feature, on_prompt=True)
        found = mlp_activations(self._replacement.model, self._row(row)[None], [layer])
        z = self._replacement.transcoders[layer].encode(found[layer].mlp_in[0])[:, unit].tolist()
        return list(enumerate(z))[self._replacement.first_position :]

    def circuit(
        self, row: FromZero, position: FromZero, feature: str | None = None, **search: Any
    ) -> Records:
        """The paths of Algorithm 1 to a feature at a place, as ``paths.json`` holds them.

        Args:
            row: of the text; the model reads it up to ``position``.
            position: where the feature is active.
            feature: such as ``tc8[355]``; by default the one that is studied.
            search: fields of :class:`~transcoders.circuits.paths.Search`; heads by their names,
                such as ``attn5[6]``.
        """
        layer, unit = self._known(feature or self._feature, on_prompt=True)
        if position >= self._rows.shape[1]:
            raise UserError(f"position {position}: expected one below {self._rows.shape[1]}")
        if unknown := search.keys() - {part.name for part in fields(Search)}:
            raise UserError(f"{', '.join(sorted(unknown))}: a search has no such option")
        if search.get("heads") is not None:
            search["heads"] = [parse_head(head) for head in search["heads"]]
        local = self._replacement.freeze(self._row(row)[: position + 1])
        if self._restricted:
            local = layer_0_together(local)
        target = feature_target(local, layer, unit, position)
        return paths_record(find_paths(local, target, Search(**search)))

    def pull_back(self, vector: str, through: str) -> str:
        """Name of what ``through``, a head or an earlier feature, reads to move a vector."""
        name = f" {ARROW} ".join(part.strip() for part in [*vector.split(ARROW), through])
        self._vector(name)
        return name

    def de_embedding(self, vector: str, k: FromOne = 10, largest: bool = True) -> Pairs:
        """The tokens of the vocabulary that drive a vector most (or least), and how much."""
        found = self._vector(vector)[None]
        return self._words(invariant.de_embeddings(self._replacement, found, k, largest=largest))

    def direct_logits(self, feature: str, k: FromOne = 10, largest: bool = True) -> Pairs:
        """The tokens whose logits a feature moves most (or least), and how much: DLA."""
        layer, unit = self._known(feature)
        writes = self._replacement.transcoders[layer].W_dec[unit][None]
        return self._words(invariant.direct_logits(self._replacement, writes, k, largest=largest))

    def connections(
        self, vector: str, layer: FromZero, k: FromOne = 10, largest: bool = True
    ) -> Pairs:
        """The features of a layer that move a vector most (or least), and how much."""
        self._vector(f"{vector} {ARROW} tc{layer}[0]")  # refuses a layer that is not before it
        W_dec = self._replacement.transcoders[layer].W_dec
        best = invariant.best_products(self._vector(vector)[None], W_dec, k, largest=largest)
        return _pairs(best, lambda unit: f"tc{layer}[{unit}]")

    def reveal(self, hypothesis: str, context: FromZero = CONTEXT) -> Records:
        """The examples with their texts; this seals the transcript.

        Args:
            hypothesis: what the feature is about.
            context: tokens before and after the peak.
        """
        if not re.search(r"\w", hypothesis):  # blanks and dashes explain nothing
            raise UserError("expected a hypothesis in words before anything is revealed")
        return [
            {**example, "text": self._marked_text(example["row"], example["position"], context)}
            for example in self.examples()
        ]

    def silent_texts(self) -> list[str]:
        """Texts around background places where the feature is silent. No question gives them."""
        return [self._marked_text(row, at, CONTEXT) for row, at in self._silent.tolist()]

    def _row(self, row: int) -> Int[Tensor, " token"]:
        if row >= len(self._rows):
            raise UserError(f"row {row}: expected one from 0 to {len(self._rows) - 1}")
        return self._rows[row]

    def _marked_text(self, row: int, at: int, context: int) -> str:
        """``before⟦peak⟧after``: a token of a row between so many others."""
        ends = (max(at - context, 0), at, at + 1, at + 1 + context)
        parts = [self._row(row)[start:stop] for start, stop in pairwise(ends)]
        return "{}⟦{}⟧{}".format(*map(self._tokenizer.decode, parts))

    def _known(self, feature: str, *, on_prompt: bool = False) -> tuple[int, int]:
        """Layer and number of a feature, if the analyst may ask about it.

        Args:
            feature: such as ``tc8[355]``.
            on_prompt: whether the question is what a prompt makes of the feature.
        """
        found = FEATURE.fullmatch(feature.strip())
        if found is None:
            raise UserError(f"{feature!r}: expected a feature by its name alone, as in tc8[355]")
        layer, unit = int(found[1]), int(found[2])
        transcoders = self._replacement.transcoders
        if layer not in transcoders or unit >= transcoders[layer].n_features:
            known = [
                f"tc{at}[0] to tc{at}[{its.n_features - 1}]" for at, its in transcoders.items()
            ]
            raise UserError(f"{feature}: no such feature; there are {', '.join(known)}")
        if self._restricted and on_prompt and layer == 0:
            raise UserError(f"{feature}: a restricted study hides what prompts make of layer 0")
        return layer, unit

    def _vector(self, name: str) -> Float[Tensor, " d_model"]:
        """The vector that a chain such as ``tc8[355] <- attn5[6] <- tc0[12]`` names.

        Attention, scales and activations count as 1: only weights are in it.
        """
        replacement = self._replacement
        first, *others = (part.strip() for part in name.split(ARROW))
        layer, unit = self._known(first)
        vector = replacement.encoder_vectors(layer, torch.tensor([unit]))
        reads = replacement.mlp_reads[layer]
        for part in others:
            is_head = part.startswith("attn")
            layer, unit = parse_head(part) if is_head else self._known(part)
            if is_head and (layer >= replacement.n_layers or unit >= replacement.n_heads):
                raise UserError(f"{part}: expected a layer below {replacement.n_layers} and a head "
                                f"below {replacement.n_heads}")  # fmt: skip
            if (replacement.attention_writes if is_head else replacement.mlp_writes)[layer] > reads:
                raise UserError(f"{name}: {part} writes nothing that is read there")
            if is_head:
                vector = invariant.through_head(replacement, vector, layer, unit)
            else:
                strength = vector @ replacement.transcoders[layer].W_dec[unit]
                vector = strength * replacement.encoder_vectors(layer, torch.tensor([unit]))
            reads = (replacement.attention_reads if is_head else replacement.mlp_reads)[layer]
        return vector[0]

    def _words(self, best: invariant.Best) -> Pairs:
        return _pairs(best, lambda token: self._tokenizer.decode([token]))


def layer_0_together(local: LocalReplacementModel) -> LocalReplacementModel:
    """The same prompt, with layer 0 one part at each token that writes what its features wrote."""
    later = local.active.layer != 0
    mlp_out = local.mlp_out.clone()
    mlp_out[0] = local.passed.mlp.mlp_out[0] - local.error[0] - local.bias[0]
    kept = {part.name: getattr(local.active, part.name)[later] for part in fields(local.active)}
    return replace(local, active=ActiveFeatures(**kept), mlp_out=mlp_out)


def problems(error: ValidationError) -> str:
    """What is wrong with which key."""
    return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())


def _pairs(best: invariant.Best, name: Callable[[int], str]) -> Pairs:
    """Names and values of the best of one vector."""
    return list(zip(map(name, best.indices[0].tolist()), best.values[0].tolist(), strict=True))


def _rounded(answer: Any) -> Any:
    """The same with numbers of :data:`DIGITS` digits; None in place of NaN and infinity."""
    if isinstance(answer, dict):
        return {name: _rounded(part) for name, part in answer.items()}
    if isinstance(answer, list | tuple):
        return [_rounded(part) for part in answer]
    if isinstance(answer, float):
        return float(f"{answer:.{DIGITS}g}") if math.isfinite(answer) else None
    return answer


def main() -> None:
    """The server's process: answer each line of the pipe with a line, until the pipe is closed."""
    scale, feature, restricted, transcript = json.loads(sys.argv[1])
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)  # what libraries print is no answer
    try:
        settings = load_scale(Layout(scale).config)
        device = prepare_process(None, settings.resources.study_features, settings.device)
        path = Path(transcript)
        server = StudyServer(scale, feature, restricted=restricted, transcript=path, device=device)
    except UserError as error:
        print(json.dumps([0, None, str(error)]), file=answers)
        return
    print(json.dumps([0, server.facts, None]), file=answers)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # from here on, neither a warning nor a crash can be heard
        os.dup2(nowhere, stream)
    for line in sys.stdin:
        number, question, arguments = json.loads(line)
        try:
            reply = [number, server.ask(question, **arguments), None]
        except (RefusedError, OSError) as error:
            reply = [number, None, str(error)]
        print(json.dumps(reply), file=answers)


if __name__ == "__main__":
    main()
