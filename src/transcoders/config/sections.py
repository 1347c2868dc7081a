"""The sections of a scale file: their keys, types and ranges.

Every key is explained, with the reasons for the values chosen, in ``config/README.md``.
"""

from typing import Annotated, Literal, NamedTuple

from pydantic import BeforeValidator, Field, model_validator

from transcoders.config.fields import (
    LIMIT,
    Fraction,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Section,
    Share,
)
from transcoders.config.kinds import TRAITS, Kind, Traits
from transcoders.config.sources import (
    HubSource,
    ModelFolder,
    SyntheticModel,
    TextSource,
    WheelSource,
)

Positions = Literal["all", "without_bos"]


TYPICAL_VOCABULARY = 50_000
"""About as many tokens as GPT-2, Pythia and SmolLM2 have."""


class Model(Section):
    """A language model."""

    source: WheelSource | HubSource | ModelFolder | SyntheticModel = Field(discriminator="type")
    n_layers: PositiveInt
    d_model: PositiveInt
    bos_token: str
    """The token at position 0 of every row. Not always the tokenizer's own BOS."""

    def n_parameters(self) -> int:
        """About: attention and an MLP four times as wide in each layer, embedding, unembedding."""
        return 12 * self.n_layers * self.d_model**2 + 2 * TYPICAL_VOCABULARY * self.d_model


TypedSource = Annotated[TextSource, Field(discriminator="type")]
Sources = Annotated[
    list[TypedSource],
    BeforeValidator(
        lambda given: given if isinstance(given, list) else [given],
        json_schema_input_type=TypedSource | list[TypedSource],
    ),
    Field(min_length=1),
]


class Corpus(Section):
    """The text, how it becomes rows of tokens, and how it is split."""

    source: Sources
    """One source, or a list of several. Documents keep the name of their source."""
    context_length: Annotated[int, Field(ge=4, lt=LIMIT)]
    """Tokens in a row, the BOS token included."""
    pack_documents: Literal["all", "train", "none"]
    """Which rows may run from one document into the next of its source. In others, a document's
    last, incomplete row is dropped."""
    train_positions: Positions
    """The positions whose activations train dictionaries."""
    metric_positions: Positions
    """The positions at which dictionaries are spliced in and measured."""
    train_contexts: PositiveInt
    eval_documents: Annotated[int, Field(ge=2, lt=LIMIT)]
    """Whole documents held out from training, the same number of each source."""
    eval_contexts: PositiveInt
    """Rows evaluated, spread evenly over the held-out documents."""

    @model_validator(mode="after")
    def _holds_out_enough(self) -> "Corpus":
        names = [source.name for source in self.source]
        if len(set(names)) < len(names):
            raise ValueError(f"source: expected a name of its own for every source, found {names}")
        if self.eval_documents < 2 * len(names):
            raise ValueError(
                f"eval_documents is {self.eval_documents}, expected at least two of each of the "
                f"{len(names)} sources"
            )
        if self.eval_contexts < self.eval_documents:
            raise ValueError(
                f"eval_contexts is {self.eval_contexts}, expected at least eval_documents "
                f"({self.eval_documents}), so that every held-out document is evaluated"
            )
        return self

    @property
    def first_train_position(self) -> int:
        """0, or 1 where the BOS token is left out of training."""
        return 0 if self.train_positions == "all" else 1

    @property
    def first_metric_position(self) -> int:
        """0, or 1 where the BOS token is left out of the metrics."""
        return 0 if self.metric_positions == "all" else 1

    @property
    def trained_positions(self) -> int:
        """Positions of a row whose activations train dictionaries."""
        return self.context_length - self.first_train_position

    @property
    def train_tokens(self) -> int:
        """Tokens whose activations train dictionaries."""
        return self.train_contexts * self.trained_positions


class Activations(Section):
    """How the inputs and outputs of MLPs reach the training."""

    mode: Literal["cache", "stream"]
    """``cache``: written to disk once. ``stream``: made by the model while dictionaries train, with
    the same bytes."""
    dtype: Literal["float16", "bfloat16"]
    batch_contexts: PositiveInt
    """Rows in one forward pass."""
    shard_contexts: PositiveInt
    """Rows in one file. In either mode, no forward pass reaches from one into the next."""


def cache_bytes(n_tokens: int, d_model: int, n_sites: int = 1) -> int:
    """Disk that a cache takes: two 16-bit vectors a token and site."""
    return n_tokens * d_model * n_sites * 2 * 2


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
    precision: Literal["float32", "tf32"]
    """Of the large matrix products. Weights, gradients and Adam's state are always float32."""
    sparse_below_density: Share
    """The share of active features below which a step computes with the active ones only. It is
    taken from the batch before, so that a resumed run chooses alike. Training starts dense."""
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
    learning_rate: PositiveFloat | None = None
    """In place of the group's; then part of the dictionary's name."""
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


class Imported(Section):
    """Transcoders that others trained, one for each of some layers of a model."""

    model: str
    layers: Annotated[list[NonNegativeInt], Field(min_length=1)]
    n_features: PositiveInt
    source: HubSource
    file: str
    """Of one layer in the repository; ``{layer}`` stands for its number."""


class ImportedTranscoder(NamedTuple):
    """A transcoder that others trained."""

    site: Site
    source: HubSource
    file: str
    """In the repository."""
    n_features: int

    @property
    def name(self) -> str:
        """``<site>_transcoder_imported``, the name of its folder."""
        return f"{self.site.name}_transcoder_imported"


class Evaluation(Section):
    """How dictionaries are measured."""

    batch_contexts: PositiveInt
    circuit_contexts: PositiveInt | None = None
    """Rows for the sites that are there for circuits only. Without it, all held-out rows."""


class Resources(Section):
    """What one job of a rule is given."""

    threads: PositiveInt
    mem_mb: PositiveInt
    runtime: PositiveInt
    """Minutes."""
    gpus: Annotated[int, Field(ge=0, le=1)] = 0
    """No job uses more than one GPU."""


class RuleResources(Section):
    """Resources of every rule that computes."""

    fetch_model: Resources
    """Also of importing a transcoder."""
    fetch_corpus: Resources
    tokenize: Resources
    cache_activations: Resources
    train: Resources
    evaluate: Resources
    circuit: Resources
    """Also of checking features."""
    greater_than: Resources
    gather_examples: Resources
    measure_features: Resources
    study_features: Resources
    notebook: Resources
