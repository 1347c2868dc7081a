"""Groups of dictionaries: as a scale file lists them, and as jobs train them."""

from itertools import product
from typing import Annotated, NamedTuple

from pydantic import Field, model_validator

from transcoders.config.fields import (
    FileName,
    Fraction,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Section,
)
from transcoders.config.sections import DictionaryEntry, Site


class OwnTraining(Section):
    """What a group may have of its own, in place of the same key of ``training``."""

    learning_rate: PositiveFloat | None = None
    warmup_steps: NonNegativeInt | None = None
    decay_fraction: Fraction | None = None
    l1_warmup_fraction: Fraction | None = None
    epochs: PositiveInt | None = None
    expansion: PositiveInt | None = None
    buffer_tokens: PositiveInt | None = None


class GroupEntry(OwnTraining):
    """An entry of ``groups``: dictionaries that one job trains, or each of several jobs."""

    name: FileName
    site: Site | None = None
    sites: Annotated[list[Site], Field(min_length=1)] | None = None
    """In place of ``site``: a job for each."""
    together: bool = False
    """One job for all sites, whatever ``activations.mode`` is: a stream of the model feeds the
    dictionaries of all of them."""
    seeds: Annotated[list[NonNegativeInt], Field(min_length=1)] | None = None
    """A job for each, in place of one with the scale's seed. A seed decides the initial weights
    and the order of batches."""
    train_contexts: Annotated[list[PositiveInt], Field(min_length=1)] | None = None
    """A job for each, on the first so many training rows, which are in random order."""
    dictionaries: Annotated[list[DictionaryEntry], Field(min_length=1)]

    @model_validator(mode="after")
    def _has_sites(self) -> "GroupEntry":
        if (self.site is None) == (self.sites is None):
            raise ValueError("expected either site or sites")
        models = sorted({site.model for site in self.all_sites})
        if self.together and len(models) > 1:
            raise ValueError(f"together: expected sites of one model, found {', '.join(models)}")
        return self

    @property
    def all_sites(self) -> list[Site]:
        """Of ``site`` or ``sites``."""
        return [self.site] if self.site else self.sites or []

    @property
    def groups(self) -> list["Group"]:
        """What is trained, job by job."""
        places = [self.all_sites] if self.together else [[site] for site in self.all_sites]
        jobs = product(places, self.train_contexts or (None,), self.seeds or (None,))
        return [Group(self, *job) for job in jobs]


class Group(NamedTuple):
    """What one job trains, on one pass over one stream of batches."""

    entry: GroupEntry
    sites: list[Site]
    """One, or those that are trained together."""
    train_contexts: int | None
    """None is all training rows."""
    seed: int | None
    """None is the scale's."""

    @property
    def name(self) -> str:
        """That of the entry, and what sets the job apart from the entry's others."""
        name = self.entry.name
        if self.entry.sites and not self.entry.together:
            name += f"-layer{self.sites[0].layer}"
        if self.seed is not None:
            name += f"-seed-{self.seed}"
        if self.train_contexts is not None:
            name += f"-contexts-{self.train_contexts}"
        return name

    @property
    def model(self) -> str:
        """The name of the model that all its sites belong to."""
        return self.sites[0].model

    @property
    def deepest(self) -> Site:
        """The last of its sites that a pass of the model comes to."""
        return max(self.sites, key=lambda site: site.layer)
