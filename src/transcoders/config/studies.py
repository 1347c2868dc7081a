"""The sections of a scale that say what is studied with its dictionaries."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from transcoders.config.fields import FileName, NonNegativeInt, PositiveInt, Section
from transcoders.config.sections import Site


class CircuitCase(Section):
    """A question to a circuit: why did this fire here?"""

    name: FileName
    model: str
    prompt: Annotated[str, Field(min_length=1)]
    target: str
    """``tc10[5315]@8``, ``tc10[top]@8`` or ``logit[ 40]-logit[ 20]@-1``."""
    components: list[Literal["feature", "head", "mlp", "embed", "error"]] = Field(
        default=["feature", "head", "mlp", "embed"]
    )
    """What paths may run through; ``mlp`` stands for those without a transcoder."""
    exclude_bos: bool = False
    """Whether paths leave out token 0."""


class FeatureCheck(Section):
    """How active a feature is on a text, and with earlier MLPs replaced by their transcoders."""

    model: str
    feature: Annotated[str, Field(pattern=r"^tc\d+\[(\d+|top)\]$")]
    """``tc8[235]``; ``tc8[top]``: the one that is most active at the last token."""
    text: Annotated[str, Field(min_length=1)]
    published: float | None = None
    """The paper's value."""
    published_replaced: float | None = None
    """The same with all earlier MLPs replaced."""


class Circuits(Section):
    """Circuits to find, and how."""

    n_paths: PositiveInt
    """Paths kept in each round of the search."""
    iterations: PositiveInt
    """Rounds: the largest number of steps of a path."""
    sign: Literal["positive", "negative", "both"] = "both"
    """The sign of the attributions of paths; ``both`` ranks them by size."""
    text_contexts: PositiveInt
    """Training rows over which means are taken and the strongest tokens of features looked up."""
    cases: list[CircuitCase]
    checks: list[FeatureCheck] = Field(default=[])


class PublishedGreaterThan(Section):
    """The paper's values of the greater-than case study."""

    layer: int
    head: str
    top_features: list[int] = Field(default=[])
    """This and ``bad_feature`` are for the authors' transcoders alone: in others, a feature's
    number means nothing."""
    bad_feature: int | None = None
    original: float
    """The metric of the model as it is. The next two are those with the MLP replaced."""
    transcoder: float
    transcoder_without_bad: float
    neurons_catch_up: int


class GreaterThan(Section):
    """The greater-than case study."""

    model: str
    """With headline transcoders at layer 0 and at least one more."""
    templates: Annotated[list[str], Field(min_length=1)]
    """Prompts, with ``{YY}`` once, where the year's last two digits go."""
    positions: Literal["all", "predicting"]
    """Where units of the chosen MLP are set to zero: everywhere, as published, or only at the
    positions that predict a digit."""
    kept: Annotated[list[NonNegativeInt], Field(min_length=2)]
    """Numbers of units kept in Figure 4, ascending."""
    n_features: PositiveInt
    """Features shown in Figure 5."""
    n_upstream_features: PositiveInt
    """Features of layer 0 through which those are de-embedded."""
    published: PublishedGreaterThan | None = None
    """Where a scale repeats the paper: shown beside what is found."""

    @model_validator(mode="after")
    def _well_formed(self) -> "GreaterThan":
        for template in self.templates:
            if template.count("{YY}") != 1:
                raise ValueError(f"templates: expected {{YY}} once, found {template!r}")
        if self.kept != sorted(set(self.kept)):
            raise ValueError(f"kept: expected different numbers, ascending, found {self.kept}")
        return self


class Interpretability(Section):
    """What features are about: examples, measures, blind studies."""

    text_contexts: PositiveInt
    """Held-out rows over which features are looked at; at most as many as there are."""
    batch_contexts: PositiveInt
    top_examples: PositiveInt
    """Rows kept of each feature: those in which it is most active."""
    sampled_examples: PositiveInt
    """Rows kept besides, drawn at random from those in which it is active."""
    background_tokens: PositiveInt
    """Tokens drawn at random at which all activations are kept."""
    rated_site: Site
    """Whose headline transcoder and MLP-in SAE are compared."""
    rated_features: PositiveInt
    """Of each of the two, for people to rate. The same number, drawn at random, get names."""
    random_directions: PositiveInt
    """Directions of the baseline."""
    studied_features: PositiveInt
    """Features of the blind studies, over all transcoders above layer 0."""

    @property
    def baseline(self) -> str:
        """The name of the random directions, among dictionaries."""
        return f"{self.rated_site.name}_random_directions"
