"""What keeps the text of a blind study, in a process of its own, and answers what may be known.

:func:`serve` is that process: lines of JSON in, lines of JSON out. What is answered and what is
refused is told in :mod:`~transcoders.case_studies.harness`, the analyst's side.
"""

import json
import math
import os
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any

import torch
from jaxtyping import Float, Int
from pydantic import BaseModel, ConfigDict, Field, ValidationError, validate_call
from torch import Tensor

from transcoders.case_studies.transcript import OPENED, Transcript, says_something
from transcoders.checksums import sha256
from transcoders.circuits.export import paths_record
from transcoders.circuits.invariant import (
    Best,
    best_products,
    de_embeddings,
    direct_logits,
    through_head,
)
from transcoders.circuits.notation import parse_head
from transcoders.circuits.paths import Search, Sign, find_paths
from transcoders.circuits.replacement import (
    ActiveFeatures,
    LocalReplacementModel,
    ReplacementModel,
)
from transcoders.circuits.vectors import feature_target
from transcoders.config import load_scale
from transcoders.dictionaries import SparseDictionary
from transcoders.errors import UserError
from transcoders.interpretability.gather import load_observed, load_text
from transcoders.layout import Layout
from transcoders.models import load_model, load_tokenizer, mlp_activations
from transcoders.process import settle_elementwise_functions

DIGITS = 6
"""Of numbers in answers, as in the tables."""
ARROW = "<-"
FEATURE = re.compile(r"^tc(\d+)\[(\d+)\]$")
FromZero = Annotated[int, Field(ge=0)]
FromOne = Annotated[int, Field(ge=1)]
CONTEXT = 24
"""Tokens before and after a place whose text is revealed."""
UNREADABLE = -1
"""The number of the answer to a line that is no question."""
EXAMPLE_COLUMNS = ["kind", "rank", "row", "position", "activation"]


class StudyFiles(BaseModel):
    """Where the server finds what it keeps: all that an analyst's process knows of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Path
    """A model's folder."""
    transcoders: dict[int, Path]
    """Folders by layer; their names are those of what was gathered of them."""
    observed: Path
    """The folder that :func:`~transcoders.interpretability.gather.gather` wrote."""
    first_position: int
    """Earlier tokens keep their MLPs."""
    device: str = "cpu"
    threads: int = 1

    @classmethod
    def of_scale(cls, scale: str, model: str | None = None, *, device: str = "cpu") -> "StudyFiles":
        """Those of a scale's headline transcoders.

        Args:
            scale: name of a file in ``config/``.
            model: one of its models, the rated one if not given.
            device: ``cpu`` or ``cuda``.

        Raises:
            UserError: the scale gathers no examples.
        """
        layout = Layout(scale)
        settings = load_scale(layout.config)
        if settings.interpretability is None:
            raise UserError(f"{layout.config}: interpretability: this key is missing; a blind "
                            "study needs the text that it describes")  # fmt: skip
        name = model or settings.interpretability.rated_site.model
        return cls(
            model=layout.model(name),
            transcoders={
                entry.site.layer: layout.dictionary(entry.name)
                for entry in settings.circuit_transcoders(name)
            },
            observed=layout.observed,
            first_position=settings.corpus.first_train_position,
            device=device,
            threads=settings.resources.study_features.threads,
        )


class StudyServer:
    """Keeps the text, and answers what a blind analyst may know.

    Attributes:
        questions: what is answered, by name; arguments are checked by type.
        facts: what is known from the start.
    """

    def __init__(
        self, files: StudyFiles, feature: str, *, restricted: bool, transcript: Path
    ) -> None:
        """Load everything and begin the transcript; arguments as of a ``BlindStudy``.

        Raises:
            UserError: something is missing, or the transcript is there.
        """
        self._transcript = Transcript(transcript)
        self._restricted = restricted
        self._circuit = ReplacementModel(
            load_model(files.model, device=files.device),
            {
                layer: SparseDictionary.from_pretrained(folder).to(files.device)
                for layer, folder in files.transcoders.items()
            },
            first_position=files.first_position,
        )
        self._feature = feature
        layer, unit = self._known(feature, on_prompt=True)
        dictionary = files.transcoders[layer].name
        self._tokenizer = load_tokenizer(files.model)
        self._rows = load_text(files.observed).rows.long().to(files.device)
        observed = load_observed(files.observed, dictionary)
        examples = observed.examples
        self._examples = examples.loc[examples["feature"] == unit, EXAMPLE_COLUMNS]
        self.questions = {
            question.__name__: validate_call(config=ConfigDict(strict=True))(question)
            for question in (
                self.examples, self.activations, self.circuit, self.pull_back, self.de_embedding,
                self.direct_logits, self.connections, self.reveal,
            )
        }  # fmt: skip
        subject = {"feature": feature, "restricted": restricted, "dictionary": dictionary}
        sizes = {
            "n_rows": self._rows.shape[0],
            "row_length": self._rows.shape[1],
            "first_position": files.first_position,
            "layers": list(self._circuit.transcoders),
            "n_heads": self._circuit.n_heads,
        }
        of_feature: Any = observed.features.set_index("feature").loc[unit]
        activity = {name: float(of_feature[name]) for name in ("frequency", "mean", "largest")}
        self.facts: dict[str, Any] = _rounded({**subject, **sizes, **activity})
        text = {"text": sha256(files.observed / "text.safetensors")}
        self._transcript.add(OPENED, {**subject, **text}, answer=self.facts)

    def reply(self, line: str) -> dict[str, Any]:
        """Answer a line: its ``number``, and an ``answer`` or why it is ``refused``."""
        try:
            request = _Request.model_validate_json(line)
        except ValidationError:
            request = _Request(number=UNREADABLE, question="unreadable", arguments={})
        reply: dict[str, Any] = {"number": request.number, "answer": None, "refused": None}
        if self._transcript.is_sealed:
            return reply | {"refused": "the study is sealed: nothing more is answered or recorded"}
        answer, refused = self._answer(request.question, request.arguments)
        try:
            digest = self._transcript.add(
                request.question, request.arguments, answer=answer, refused=refused
            )
        except Exception as error:  # a full disk, a number that Python does not write
            system = error.strerror if isinstance(error, OSError) else None  # words of its own
            problem = system or type(error).__name__
            return reply | {"refused": f"not recorded ({problem}), so not answered; ask again"}
        if self._transcript.is_sealed:
            answer = {"examples": answer, "seal": digest}
        return reply | {"answer": answer, "refused": refused}

    def _answer(self, question: str, arguments: dict[str, Any]) -> tuple[Any, str | None]:
        """The answer, or why there is none."""
        if question not in self.questions:
            known = ", ".join(self.questions)
            return None, f"{question}: a blind study does not answer this; it answers {known}"
        try:
            return _rounded(self.questions[question](**arguments)), None
        except ValidationError as error:
            problems = [
                f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"
                for problem in error.errors()
            ]
            return None, f"{question}: {'; '.join(problems)}"
        except UserError as error:
            return None, f"{question}: {error}"
        except Exception as error:  # whose message might hold tokens
            return None, f"{question}: failed with {type(error).__name__}"

    def examples(self) -> list[dict[str, Any]]:
        """Rows, positions and activations of the feature's examples."""
        rows = self._examples.itertuples(index=False, name=None)
        return [dict(zip(EXAMPLE_COLUMNS, row, strict=True)) for row in rows]

    def activations(
        self,
        row: FromZero,
        start: FromZero | None = None,
        stop: FromOne | None = None,
        feature: str | None = None,
    ) -> list[tuple[int, float]]:
        """Positions and activations of a feature on a row.

        Args:
            row: of the text.
            start: the first position; by default the first with transcoders.
            stop: the position after the last; by default the row's end.
            feature: ``tc8[355]``; by default the one that is studied.
        """
        layer, unit = self._known(feature or self._feature, on_prompt=True)
        found = mlp_activations(self._circuit.model, self._row(row)[None], [layer])
        z = self._circuit.transcoders[layer].encode(found[layer].mlp_in[0])[:, unit].tolist()
        return list(enumerate(z))[max(start or 0, self._circuit.first_position) : stop]

    def circuit(
        self,
        row: FromZero,
        position: FromZero,
        feature: str | None = None,
        n_paths: FromOne = 25,
        iterations: FromOne = 5,
        sign: Sign = "positive",
        components: list[str] | None = None,
        layers: list[int] | None = None,
        heads: list[str] | None = None,
        tokens: list[int] | None = None,
        exclude_bos: bool = False,
    ) -> list[dict[str, Any]]:
        """The paths of Algorithm 1 to a feature at a place, as ``paths.json`` holds them.

        Args:
            row: of the text; the model reads it up to ``position``.
            position: where the feature is active.
            feature: ``tc8[355]``; by default the one that is studied.
            n_paths: as of :class:`~transcoders.circuits.paths.Search`, as are the following.
            iterations: rounds.
            sign: of attributions.
            components: kinds of nodes.
            layers: of the nodes.
            heads: such as ``attn5[6]``.
            tokens: positions.
            exclude_bos: leave out position 0.
        """
        layer, unit = self._known(feature or self._feature, on_prompt=True)
        if position >= self._rows.shape[1]:
            raise UserError(f"position {position}: expected one below {self._rows.shape[1]}")
        search = Search(
            n_paths=n_paths,
            iterations=iterations,
            sign=sign,
            components=Search.components if components is None else components,
            layers=layers,
            heads=None if heads is None else [parse_head(head) for head in heads],
            tokens=tokens,
            exclude_bos=exclude_bos,
        )
        local = self._circuit.freeze(self._row(row)[: position + 1])
        if self._restricted:
            local = layer_0_together(local)
        return paths_record(find_paths(local, feature_target(local, layer, unit, position), search))

    def pull_back(self, vector: str, through: str) -> str:
        """Name of what ``through``, a head or an earlier feature, reads to move a vector."""
        name = ARROW.join((vector, through))
        self._vector(name)
        return f" {ARROW} ".join(part.strip() for part in name.split(ARROW))

    def de_embedding(
        self, vector: str, k: FromOne = 10, largest: bool = True
    ) -> list[tuple[str, float]]:
        """The tokens of the vocabulary that drive a vector most (or least), and how much."""
        return self._words(
            de_embeddings(self._circuit, self._vector(vector)[None], k, largest=largest)
        )

    def direct_logits(
        self, feature: str, k: FromOne = 10, largest: bool = True
    ) -> list[tuple[str, float]]:
        """The tokens whose logits a feature moves most (or least), and how much: DLA."""
        layer, unit = self._known(feature)
        writes = self._circuit.transcoders[layer].W_dec[unit]
        return self._words(direct_logits(self._circuit, writes[None], k, largest=largest))

    def connections(
        self, vector: str, layer: FromZero, k: FromOne = 10, largest: bool = True
    ) -> list[tuple[str, float]]:
        """The features of a layer that move a vector most (or least), and how much."""
        self._vector(f"{vector} {ARROW} tc{layer}[0]")  # is the layer before it?
        W_dec = self._circuit.transcoders[layer].W_dec
        best = best_products(self._vector(vector)[None], W_dec, k, largest=largest)
        names = [f"tc{layer}[{unit}]" for unit in best.indices[0].tolist()]
        return list(zip(names, best.values[0].tolist(), strict=True))

    def reveal(self, hypothesis: str, context: FromZero = CONTEXT) -> list[dict[str, Any]]:
        """The examples with their texts; this seals the transcript.

        Args:
            hypothesis: what the feature is about.
            context: tokens before and after the peak.
        """
        if not says_something(hypothesis):
            raise UserError("expected a hypothesis in words before anything is revealed")
        return [
            {
                **example,
                "text": marked_text(
                    self._tokenizer, self._row(example["row"]), example["position"], context
                ),
            }
            for example in self.examples()
        ]

    def _row(self, row: int) -> Int[Tensor, " token"]:
        if not 0 <= row < len(self._rows):
            raise UserError(f"row {row}: expected one from 0 to {len(self._rows) - 1}")
        return self._rows[row]

    def _known(self, feature: str, *, on_prompt: bool = False) -> tuple[int, int]:
        """Layer and number of a feature, if it may be asked about.

        Args:
            feature: ``tc8[355]``.
            on_prompt: whether what a prompt makes of it is asked for.
        """
        found = FEATURE.fullmatch(feature.strip())
        if found is None:
            raise UserError(f"{feature!r}: expected a feature by its name alone, as in tc8[355]")
        layer, unit = int(found[1]), int(found[2])
        transcoder = self._circuit.transcoders.get(layer)
        if transcoder is None or unit >= transcoder.n_features:
            raise UserError(f"{feature}: no such feature; there are " + ", ".join(
                f"tc{at}[0] to tc{at}[{known.n_features - 1}]"
                for at, known in self._circuit.transcoders.items()
            ))  # fmt: skip
        if self._restricted and on_prompt and layer == 0:
            raise UserError(f"{feature}: a restricted study hides what prompts make of layer 0")
        return layer, unit

    def _vector(self, name: str) -> Float[Tensor, " d_model"]:
        """The vector that a chain such as ``tc8[355] <- attn5[6] <- tc0[12]`` names.

        Attention, scales and activations are taken as 1: weights are all that is in it.
        """
        circuit = self._circuit
        first, *others = (part.strip() for part in name.split(ARROW))
        layer, unit = self._known(first)
        vector = circuit.encoder_vectors(layer, torch.tensor([unit]))
        reads = int(circuit.mlp_reads(layer))
        for part in others:
            is_head = part.startswith("attn")
            layer, unit = parse_head(part) if is_head else self._known(part)
            if is_head and not (layer < circuit.n_layers and unit < circuit.n_heads):
                raise UserError(f"{part}: expected a layer below {circuit.n_layers} and a head "
                                f"below {circuit.n_heads}")  # fmt: skip
            writes = circuit.attention_writes if is_head else circuit.mlp_writes
            if int(writes[layer]) > reads:
                raise UserError(f"{name}: {part} writes nothing that is read there")
            if is_head:
                vector = through_head(circuit, vector, layer, unit)
                reads = int(circuit.attention_reads(layer))
            else:
                strength = vector @ circuit.transcoders[layer].W_dec[unit]
                vector = strength * circuit.encoder_vectors(layer, torch.tensor([unit]))
                reads = int(circuit.mlp_reads(layer))
        return vector[0]

    def _words(self, best: Best) -> list[tuple[str, float]]:
        """Tokens of the vocabulary, and values."""
        words = [self._tokenizer.decode([token]) for token in best.indices[0].tolist()]
        return list(zip(words, best.values[0].tolist(), strict=True))


class _Request(BaseModel):
    """What a line asks."""

    model_config = ConfigDict(strict=True, extra="forbid")

    number: int
    question: str
    arguments: dict[str, Any]


def layer_0_together(local: LocalReplacementModel) -> LocalReplacementModel:
    """The same prompt, with layer 0 one part at each token that writes what its features wrote."""
    active = local.active
    later = active.layer != 0
    mlp_out = local.mlp_out.clone()
    mlp_out[0] = local.passed.mlp.mlp_out[0] - local.error[0] - local.bias[0]
    kept = {part.name: getattr(active, part.name)[later] for part in fields(active)}
    return replace(local, active=ActiveFeatures(**kept), mlp_out=mlp_out)


def marked_text(tokenizer: Any, row: Int[Tensor, " token"], at: int, context: int = CONTEXT) -> str:
    """``before⟦peak⟧after``: a token of a row between so many others."""
    before, peak, after = (
        tokenizer.decode(row[part])
        for part in (
            slice(max(at - context, 0), at),
            slice(at, at + 1),
            slice(at + 1, at + 1 + context),
        )
    )
    return f"{before}⟦{peak}⟧{after}"


def _rounded(answer: Any) -> Any:
    """The same with numbers of :data:`DIGITS` digits; None for what is no number."""
    match answer:
        case dict():
            return {name: _rounded(part) for name, part in answer.items()}
        case list() | tuple():
            return [_rounded(part) for part in answer]
        case float():
            return float(f"{answer:.{DIGITS}g}") if math.isfinite(answer) else None
        case _:
            return answer


def serve() -> None:
    """The server's process: lines in and lines out, until the pipe is closed."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    with (
        open(0, encoding="utf-8", errors="replace", closefd=False) as questions,
        os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1) as answers,
    ):
        os.dup2(2, 1)  # what libraries print is no answer
        opening = json.loads(questions.readline())
        files = StudyFiles.model_validate(opening["files"])
        torch.use_deterministic_algorithms(True)
        torch.set_num_threads(files.threads)
        settle_elementwise_functions()
        reply = {"number": opening["number"], "answer": None, "refused": None}
        try:
            server = StudyServer(
                files,
                opening["feature"],
                restricted=opening["restricted"],
                transcript=Path(opening["transcript"]),
            )
        except UserError as error:
            print(json.dumps(reply | {"refused": str(error)}), file=answers)
            return
        print(json.dumps(reply | {"answer": server.facts}), file=answers)
        for stream in (1, 2):  # from here on, not even a warning or a crash is heard
            os.dup2(nowhere, stream)
        for line in questions:
            print(json.dumps(server.reply(line)), file=answers)
