"""A whole scale: its sections, and what is found in them."""

from collections import defaultdict
from collections.abc import Iterable
from functools import cached_property
from itertools import product
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from transcoders.config.agreement import check_agreement
from transcoders.config.fields import FileName, Section
from transcoders.config.groups import Group, GroupEntry, OwnTraining
from transcoders.config.kinds import RATED_KINDS, Kind
from transcoders.config.sections import (
    Activations,
    Corpus,
    DictionaryEntry,
    Evaluation,
    Imported,
    ImportedTranscoder,
    Model,
    RuleResources,
    Site,
    Training,
)
from transcoders.config.studies import CircuitCase, Circuits, GreaterThan, Interpretability
from transcoders.errors import UserError


class Dictionary(DictionaryEntry):
    """A dictionary with everything that identifies it."""

    site: Site
    group: str
    variant: str = ""
    """How its job differs from the scale's own in rows, epochs, width or seed, as
    ``_contexts-1032_epochs-16_x32_seed-43``. Empty if it does not."""

    @property
    def name(self) -> str:
        """``<site>_<kind>_l1-<coefficient>``, or ``_k-<k>``: unique, the name of its folder.

        With ``_lr-<rate>`` where it has a learning rate of its own, and its variant.
        """
        sparsity = f"l1-{self.l1_coefficient:g}" if self.k is None else f"k-{self.k}"
        rate = "" if self.learning_rate is None else f"_lr-{self.learning_rate:g}"
        return f"{self.site.name}_{self.kind}_{sparsity}{rate}{self.variant}"


class Scale(Section):
    """One reproduction of the paper: everything that its results depend on."""

    name: FileName
    description: str
    takes: str
    """How long a whole run takes, and on what."""
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    device: Literal["auto", "cpu", "cuda"]
    instruction_set: Literal["avx2", "auto"]
    """Of the processor: ``avx2`` at most, or whatever it has."""
    models: Annotated[dict[FileName, Model], Field(min_length=1)]
    corpus: Corpus
    sites: tuple[Site, ...] = Field(default=(), strict=False)
    """Where the paper's three kinds are compared."""
    circuit_sites: tuple[Site, ...] = Field(default=(), strict=False)
    """Further MLPs that get a transcoder, so that circuits can be followed through them."""
    activations: Activations | None = None
    """This, ``training`` and ``evaluation`` are needed where there are ``groups``."""
    training: Training | None = None
    groups: tuple[GroupEntry, ...] = Field(default=(), strict=False)
    extensions: tuple[GroupEntry, ...] = Field(default=(), strict=False)
    """Groups of kinds that the paper does not have; everything works without them."""
    imported: tuple[Imported, ...] = Field(default=(), strict=False)
    """Transcoders that others trained: used in circuits, not trained or evaluated here."""
    evaluation: Evaluation | None = None
    circuits: Circuits
    greater_than: GreaterThan | None = None
    """Left out where no model of the scale writes numbers."""
    interpretability: Interpretability | None = None
    resources: RuleResources

    @cached_property
    def imported_transcoders(self) -> list[ImportedTranscoder]:
        """One for each layer."""
        return [
            ImportedTranscoder(
                Site(model=entry.model, layer=layer),
                entry.source,
                entry.file.replace("{layer}", str(layer)),
                entry.n_features,
            )
            for entry in self.imported
            for layer in entry.layers
        ]

    @property
    def all_sites(self) -> list[Site]:
        """Every MLP that dictionaries are trained on."""
        return [*self.sites, *self.circuit_sites]

    @property
    def rows_for_circuits(self) -> int | None:
        """Held-out rows for measures that serve circuits only, or None for all."""
        return self.evaluation.circuit_contexts if self.evaluation else None

    def rows_of_evaluation(self, site: Site) -> int | None:
        """Held-out rows on which a site is measured, or None for all: those of the comparison."""
        fewer = self.rows_for_circuits
        return fewer if site in self.circuit_sites else None

    @property
    def all_groups(self) -> list[Group]:
        """What is trained, job by job: the paper's groups, then extensions."""
        return [group for entry in (*self.groups, *self.extensions) for group in entry.groups]

    @cached_property
    def dictionaries(self) -> list[Dictionary]:
        """Every dictionary that is trained, in the order of the groups."""
        return [entry for group in self.all_groups for entry in self.dictionaries_in(group)]

    def dictionaries_in(self, group: Group) -> list[Dictionary]:
        """What one job trains, site by site."""
        variant = self.variant(group)
        changes = {} if self.makes_headlines(group) else {"headline": False}
        return [
            Dictionary(**dict(entry) | changes, site=site, group=group.name, variant=variant)
            for site in group.sites
            for entry in group.entry.dictionaries
        ]

    def makes_headlines(self, group: Group) -> bool:
        """Whether a group is like the scale's own, or its sites are for circuits only."""
        return not self.variant(group) or not set(group.sites) & set(self.sites)

    def variant(self, group: Group) -> str:
        """How a group differs from the scale's own: what its dictionaries' names end with."""
        assert self.training is not None  # there is a group
        own = {
            "contexts-": (group.train_contexts, self.corpus.train_contexts),
            "epochs-": (group.entry.epochs, self.training.epochs),
            "x": (group.entry.expansion, self.training.expansion),
            "seed-": (group.seed, self.seed),
        }
        return "".join(
            f"_{key}{value}" for key, (value, usual) in own.items() if value not in (None, usual)
        )

    @property
    def sweeps_data(self) -> bool:
        """Whether both kinds of Figure 3 see several amounts of data at a site, in one pass each.

        Then the gap between them is compared by amount of data and by other controls.
        """
        amounts: dict[tuple[Site, Kind], set[int]] = defaultdict(set)
        for group in self.all_groups:
            assert self.training is not None  # there is a group
            if (group.entry.epochs or self.training.epochs) == 1:
                for site, entry in product(group.sites, group.entry.dictionaries):
                    amounts[site, entry.kind].add(self.contexts_of(group))
        return any(
            len(amounts[site, "transcoder"] & amounts[site, "mlp_out_sae"]) > 1
            for site in self.sites
        )

    def site(self, name: str) -> Site:
        """The site of that name; a :class:`UserError` lists the names there are."""
        return _named(self.all_sites, name, "site")

    def group(self, name: str) -> Group:
        """The group of that name; a :class:`UserError` lists the names there are."""
        return _named(self.all_groups, name, "group")

    def circuit_case(self, name: str) -> CircuitCase:
        """The circuit of that name; a :class:`UserError` lists the names there are."""
        return _named(self.circuits.cases, name, "circuit")

    def training_of(self, group: Group) -> Training:
        """The settings of a scale's training, with what a group has of its own."""
        assert self.training is not None  # there is a group
        own = group.entry.model_dump(include=set(OwnTraining.model_fields), exclude_none=True)
        return self.training.model_copy(update=own)

    def seed_of(self, group: Group) -> int:
        """The seed of a group's initial weights and order of batches."""
        return self.seed if group.seed is None else group.seed

    def contexts_of(self, group: Group) -> int:
        """How many training rows, from the first, a group trains on."""
        return group.train_contexts or self.corpus.train_contexts

    def streams(self, group: Group) -> bool:
        """Whether the model makes a group's activations while it trains, and no cache is read."""
        assert self.activations is not None  # there is a group
        return group.entry.together or self.activations.mode == "stream"

    def cached_contexts(self, site: Site) -> int:
        """How many training rows of a site are cached: what the largest group that reads needs."""
        reading = [g for g in self.all_groups if site in g.sites and not self.streams(g)]
        return max(map(self.contexts_of, reading), default=0)

    def model(self, name: str) -> Model:
        """The model of that name; a :class:`UserError` lists the names there are."""
        return _found(self.models, name, "model")

    def sites_of(self, model: str) -> list[Site]:
        """The sites of a model, from the first layer to the last."""
        return sorted((s for s in self.all_sites if s.model == model), key=lambda site: site.layer)

    def circuit_transcoders(self, model: str) -> list[Dictionary | ImportedTranscoder]:
        """The transcoders that a model's circuits go through, from the first layer to the last.

        The headline transcoder of each site, and those that were imported.
        """
        transcoders: list[Dictionary | ImportedTranscoder] = []
        transcoders += self.headlines(model, "transcoder")
        transcoders += [entry for entry in self.imported_transcoders if entry.site.model == model]
        return sorted(transcoders, key=lambda transcoder: transcoder.site.layer)

    def imported_transcoder(self, name: str) -> ImportedTranscoder:
        """The imported transcoder of that name; a :class:`UserError` lists those there are."""
        return _named(self.imported_transcoders, name, "imported transcoder")

    @property
    def studied(self) -> Interpretability:
        """The section ``interpretability``, for code that runs only if the scale has it."""
        assert self.interpretability is not None
        return self.interpretability

    def rated(self, kind: Kind) -> Dictionary:
        """The headline dictionary of a kind at the site whose features are rated."""
        site = self.studied.rated_site
        return next(entry for entry in self.headlines(site.model, kind) if entry.site == site)

    @property
    def observed_dictionaries(self) -> list[Dictionary]:
        """Those whose features are looked at: transcoders of the rated model, and the rated SAE.

        Only those that were trained as the scale says, with its seed, rows, epochs and width.
        """
        model = self.studied.rated_site.model
        of_model = [e for e in self.dictionaries if e.site.model == model and not e.variant]
        transcoders = [entry for entry in of_model if entry.kind == "transcoder"]
        return [*transcoders, self.rated("mlp_in_sae")]

    @property
    def labelled_models(self) -> list[str]:
        """Those whose features get labels: the models of circuits, and the rated one."""
        if self.interpretability is None:
            return []
        cases = [case.model for case in self.circuits.cases]
        return list(dict.fromkeys([*cases, self.interpretability.rated_site.model]))

    def labelled_dictionaries(self, model: str) -> list[Dictionary | ImportedTranscoder]:
        """The dictionaries of a model whose features get labels, and are in the feature browser.

        Those that its circuits go through, and the two that are rated.
        """
        in_circuits = [case.model for case in self.circuits.cases]
        found = self.circuit_transcoders(model) if model in in_circuits else []
        if model == self.studied.rated_site.model:
            rated = [self.rated(kind) for kind in RATED_KINDS]
            found = [*found, *(entry for entry in rated if entry not in found)]
        return found

    def headlines(self, model: str, kind: Kind) -> list[Dictionary]:
        """The headline dictionaries of a kind, from the first layer of a model to the last."""
        of_kind = [d for d in self.dictionaries if d.headline and d.kind == kind]
        return [d for site in self.sites_of(model) for d in of_kind if d.site == site]

    def dictionaries_of(self, site: Site) -> list[Dictionary]:
        """The dictionaries of a site, in the order of the groups."""
        return [dictionary for dictionary in self.dictionaries if dictionary.site == site]

    @model_validator(mode="after")
    def _sections_agree(self) -> "Scale":
        check_agreement(self)
        return self


def _named(entries: Iterable[Any], name: str, what: str) -> Any:
    return _found({entry.name: entry for entry in entries}, name, what)


def _found(by_name: dict[str, Any], name: str, what: str) -> Any:
    if name not in by_name:
        raise UserError(f"no {what} named {name!r}; expected one of {', '.join(by_name)}")
    return by_name[name]
