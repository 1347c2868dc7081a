"""A whole scale file: its sections, and that they agree with each other."""

import difflib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import yaml
from pydantic import Field, ValidationError, model_validator

from transcoders.config.fields import FileName, Section
from transcoders.config.kinds import KINDS, Kind
from transcoders.config.sections import (
    Activations,
    CircuitCase,
    Circuits,
    Corpus,
    DictionaryEntry,
    Evaluation,
    GreaterThan,
    Group,
    Imported,
    Interpretability,
    Model,
    RuleResources,
    Site,
    Training,
)
from transcoders.config.sources import HubSource
from transcoders.errors import UserError


class Dictionary(DictionaryEntry):
    """A dictionary with everything that identifies it."""

    site: Site
    group: str

    @property
    def name(self) -> str:
        """``<site>_<kind>_l1-<coefficient>``, or ``_k-<k>``: unique, the name of its folder."""
        sparsity = f"k-{self.k}" if self.traits.is_topk else f"l1-{self.l1_coefficient:g}"
        return f"{self.site.name}_{self.kind}_{sparsity}"


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


class Scale(Section):
    """One reproduction of the paper: everything that its results depend on."""

    name: FileName
    description: str
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    device: Literal["auto", "cpu", "cuda"]
    models: Annotated[dict[FileName, Model], Field(min_length=1)]
    corpus: Corpus
    sites: tuple[Site, ...] = Field(default=(), strict=False)
    """Where the paper's three kinds are compared."""
    circuit_sites: tuple[Site, ...] = Field(default=(), strict=False)
    """Further MLPs that get a transcoder, so that circuits can be followed through them."""
    activations: Activations | None = None
    """This, ``training`` and ``evaluation`` are needed where there are ``groups``."""
    training: Training | None = None
    groups: tuple[Group, ...] = Field(default=(), strict=False)
    extensions: tuple[Group, ...] = Field(default=(), strict=False)
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
    def all_groups(self) -> list[Group]:
        """The paper's groups, then the extensions."""
        return [*self.groups, *self.extensions]

    @cached_property
    def dictionaries(self) -> list[Dictionary]:
        """Every dictionary, in the order of the groups."""
        return [
            Dictionary(**dict(entry), site=group.site, group=group.name)
            for group in self.all_groups
            for entry in group.dictionaries
        ]

    def site(self, name: str) -> Site:
        """The site of that name; a :class:`UserError` lists the names there are."""
        return _by_name(self.all_sites, name, "site")

    def group(self, name: str) -> Group:
        """The group of that name; a :class:`UserError` lists the names there are."""
        return _by_name(self.all_groups, name, "group")

    def circuit_case(self, name: str) -> CircuitCase:
        """The circuit of that name; a :class:`UserError` lists the names there are."""
        return _by_name(self.circuits.cases, name, "circuit")

    def training_of(self, group: Group) -> Training:
        """The settings of a scale's training, with what a group has of its own."""
        assert self.training is not None  # there is a group
        if group.learning_rate is None:
            return self.training
        return self.training.model_copy(update={"learning_rate": group.learning_rate})

    def model(self, name: str) -> Model:
        """The model of that name; a :class:`UserError` lists the names there are."""
        if name not in self.models:
            raise UserError(f"no model named {name!r}; expected one of {', '.join(self.models)}")
        return self.models[name]

    def sites_of(self, model: str) -> list[Site]:
        """The sites of a model, from the first layer to the last."""
        return sorted((s for s in self.all_sites if s.model == model), key=lambda site: site.layer)

    def circuit_transcoders(self, model: str) -> list[Dictionary | ImportedTranscoder]:
        """The transcoders that a model's circuits go through, from the first layer to the last.

        The headline transcoder of each site, and those that were imported.
        """
        imported = [entry for entry in self.imported_transcoders if entry.site.model == model]
        transcoders: list[Dictionary | ImportedTranscoder] = [
            *self.headlines(model, "transcoder"), *imported,
        ]  # fmt: skip
        return sorted(transcoders, key=lambda transcoder: transcoder.site.layer)

    def imported_transcoder(self, name: str) -> ImportedTranscoder:
        """The imported transcoder of that name; a :class:`UserError` lists those there are."""
        return _by_name(self.imported_transcoders, name, "imported transcoder")

    def rated(self, kind: Kind) -> Dictionary:
        """The headline dictionary of a kind at the site whose features are rated."""
        assert self.interpretability is not None
        site = self.interpretability.rated_site
        return next(
            entry for entry in self.dictionaries_of(site) if entry.kind == kind and entry.headline
        )

    @property
    def observed_dictionaries(self) -> list[Dictionary]:
        """Those whose features are looked at: transcoders of the rated model, and the rated SAE."""
        assert self.interpretability is not None
        model = self.interpretability.rated_site.model
        transcoders = [
            entry for entry in self.dictionaries
            if entry.kind == "transcoder" and entry.site.model == model
        ]  # fmt: skip
        return [*transcoders, self.rated("mlp_in_sae")]

    def observed_dictionary(self, name: str) -> Dictionary:
        """The observed dictionary of that name; a :class:`UserError` lists those there are."""
        return _by_name(self.observed_dictionaries, name, "observed dictionary")

    def headlines(self, model: str, kind: Kind) -> list[Dictionary]:
        """The headline dictionaries of a kind, from the first layer of a model to the last."""
        return [
            dictionary
            for site in self.sites_of(model)
            for dictionary in self.dictionaries_of(site)
            if dictionary.kind == kind and dictionary.headline
        ]

    def dictionaries_of(self, site: Site) -> list[Dictionary]:
        """The dictionaries of a site, in the order of the groups."""
        return [dictionary for dictionary in self.dictionaries if dictionary.site == site]

    @model_validator(mode="after")
    def _names_agree(self) -> "Scale":
        for problem in self._disagreements():
            raise ValueError(problem)
        return self

    def _disagreements(self) -> Iterator[str]:
        yield from self._missing_for_training()
        imported = [transcoder.site for transcoder in self.imported_transcoders]
        for key, sites in (
            ("sites", self.sites),
            ("circuit_sites", self.circuit_sites),
            ("imported", imported),
        ):
            for site in sites:
                yield from self._disagreements_of_site(site, key)
        for key, groups in (("groups", self.groups), ("extensions", self.extensions)):
            for group in groups:
                yield from self._disagreements_of(group, key)
        for what, names in (
            (
                "sites, circuit_sites and imported",
                [site.name for site in (*self.all_sites, *imported)],
            ),
            ("groups", [group.name for group in self.all_groups]),
            ("dictionaries", [dictionary.name for dictionary in self.dictionaries]),
            ("circuits.cases", [case.name for case in self.circuits.cases]),
        ):
            for name in sorted({name for name in names if names.count(name) > 1}):
                yield f"{what}: {name} is listed {names.count(name)} times, expected once"
        for site in self.all_sites:
            for kind in KINDS if site in self.sites else KINDS[:1]:
                headlines = [
                    d.name for d in self.dictionaries_of(site) if d.kind == kind and d.headline
                ]
                if len(headlines) != 1:
                    yield (
                        f"groups: {site.name} has {len(headlines)} headline dictionaries of kind "
                        f"{kind}, expected exactly 1"
                    )
        yield from self._disagreements_of_circuits()
        yield from self._disagreements_of_greater_than()
        yield from self._disagreements_of_interpretability()
        if self.training is not None:
            yield from self._disagreements_of_training(self.training)

    def _missing_for_training(self) -> Iterator[str]:
        if not self.imported and not self.groups:
            yield "groups: this key is missing; a scale trains groups, or has `imported` ones"
        for key in ("activations", "training", "evaluation", "sites"):
            if self.all_groups and not getattr(self, key):
                yield f"{key}: this key is missing; config/README.md says what it means"

    def _disagreements_of_training(self, training: Training) -> Iterator[str]:
        if training.precision == "tf32" and self.device == "cpu":
            yield "training.precision is tf32, which only a GPU has; expected float32 or bf16"
        if training.batch_tokens > self.corpus.train_tokens:
            yield (
                f"training.batch_tokens is {training.batch_tokens}, expected at most the "
                f"{self.corpus.train_tokens} training tokens that corpus.train_contexts gives"
            )

    def _disagreements_of_circuits(self) -> Iterator[str]:
        for what, name in (
            *((f"circuits.cases: {case.name}", case.model) for case in self.circuits.cases),
            *((f"circuits.checks: {check.feature}", check.model) for check in self.circuits.checks),
        ):
            if name not in self.models:
                yield f"{what}: no model named {name!r} among {', '.join(self.models)}"
        if self.circuits.text_contexts > self.corpus.train_contexts:
            yield (
                f"circuits.text_contexts is {self.circuits.text_contexts}, expected at most "
                f"corpus.train_contexts ({self.corpus.train_contexts})"
            )

    def _disagreements_of_greater_than(self) -> Iterator[str]:
        if self.greater_than is None:
            return
        name = self.greater_than.model
        if name not in self.models:
            yield f"greater_than.model: no model named {name!r} among {', '.join(self.models)}"
            return
        layers = [dictionary.site.layer for dictionary in self.circuit_transcoders(name)]
        if 0 not in layers or len(layers) < 2:
            yield (
                f"greater_than.model: expected headline transcoders of {name} at layer 0 and at "
                f"least one more, found layers {layers}; add sites or circuit_sites"
            )

    def _disagreements_of_interpretability(self) -> Iterator[str]:
        if self.interpretability is None:
            return
        site = self.interpretability.rated_site
        if site not in self.sites:
            names = ", ".join(known.name for known in self.sites)
            yield (
                f"interpretability.rated_site is {site.name}, expected one of sites, where all "
                f"kinds are trained: {names or 'none'}"
            )
        elif 0 not in [entry.site.layer for entry in self.headlines(site.model, "transcoder")]:
            yield (
                f"interpretability.rated_site: expected a transcoder at layer 0 of {site.model}, "
                "from which blind studies predict; add it to circuit_sites"
            )

    def _disagreements_of_site(self, site: Site, key: str) -> Iterator[str]:
        if site.model not in self.models:
            yield f"{key}: no model named {site.model!r} among {', '.join(self.models)}"
        elif site.layer >= self.models[site.model].n_layers:
            n_layers = self.models[site.model].n_layers
            yield (
                f"{key}: layer {site.layer} of {site.model}, expected a layer from 0 to "
                f"{n_layers - 1}, since the model has {n_layers}"
            )

    def _disagreements_of(self, group: Group, key: str) -> Iterator[str]:
        if group.site not in self.all_sites:
            yield f"{key}: {group.name} names {group.site.name}, which is not among the sites"
            return
        assert self.training is not None
        n_features = self.training.expansion * self.models[group.site.model].d_model
        for entry in group.dictionaries:
            if entry.k is not None and entry.k > n_features:
                yield (
                    f"{key}: {group.name} has a {entry.kind} with k = {entry.k}, expected at most "
                    f"its {n_features} features"
                )
            if (entry.kind in KINDS) != (key == "groups"):
                yield (
                    f"{key}: {group.name} has a {entry.kind}; groups hold the paper's kinds "
                    f"({', '.join(KINDS)}), extensions the others"
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
