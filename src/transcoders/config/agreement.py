"""Checks that the sections of a scale agree with each other."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from transcoders.config.groups import GroupEntry
from transcoders.config.kinds import KINDS
from transcoders.config.sections import Site

if TYPE_CHECKING:
    from transcoders.config.scale import Scale


def check_agreement(scale: "Scale") -> None:
    """Check what no section can check alone.

    Raises:
        ValueError: one section does not fit another. The message names the key.
    """
    if problem := next(_problems(scale), None):
        raise ValueError(problem)


def _problems(scale: "Scale") -> Iterator[str]:
    """Sentences on what does not fit. Only the first counts: each check relies on earlier ones."""
    if not scale.imported and not scale.groups:
        yield "groups: this key is missing; a scale trains groups, or has `imported`"
    for key in ("activations", "training", "evaluation", "sites"):
        if scale.all_groups and not getattr(scale, key):
            yield f"{key}: this key is missing; config/README.md says what it means"
    if scale.training and scale.training.precision == "tf32" and scale.device == "cpu":
        yield "training.precision: only a GPU has tf32; expected float32"
    yield from _of_models_and_layers(scale)
    for key in ("groups", "extensions"):
        for entry in getattr(scale, key):
            yield from _of_rows(scale, key, entry)
            yield from _of_dictionaries(scale, key, entry)
    yield from _of_names(scale)
    yield from _of_headlines(scale)
    yield from _of_studies(scale)


def _of_models_and_layers(scale: "Scale") -> Iterator[str]:
    using_models: dict[str, Sequence[Any]] = {
        "sites": scale.sites,
        "circuit_sites": scale.circuit_sites,
        "imported": [transcoder.site for transcoder in scale.imported_transcoders],
        "circuits.cases": scale.circuits.cases,
        "circuits.checks": scale.circuits.checks,
        "greater_than": [scale.greater_than] if scale.greater_than else [],
    }
    for key, entries in using_models.items():
        for entry in entries:
            if entry.model not in scale.models:
                yield f"{key}: no model named {entry.model!r} among {', '.join(scale.models)}"
            last = scale.models[entry.model].n_layers - 1
            if isinstance(entry, Site) and entry.layer > last:
                yield f"{key}: layer {entry.layer} of {entry.model}, expected one from 0 to {last}"


def _of_rows(scale: "Scale", key: str, entry: GroupEntry) -> Iterator[str]:
    for site in entry.all_sites:
        if site not in scale.all_sites:
            yield f"{key}: {entry.name} names {site.name}, which is not among the sites"
    assert scale.training is not None
    for group in entry.groups:
        rows, batch = scale.contexts_of(group), scale.training.batch_tokens
        n_tokens = rows * scale.corpus.trained_positions
        if rows > scale.corpus.train_contexts:
            yield (
                f"{key}: {entry.name} has train_contexts {rows}, expected at most the "
                f"{scale.corpus.train_contexts} of corpus.train_contexts"
            )
        if batch > n_tokens:
            yield (
                f"training.batch_tokens is {batch}, expected at most the {n_tokens} tokens that "
                f"{group.name} trains on"
            )


def _of_dictionaries(scale: "Scale", key: str, entry: GroupEntry) -> Iterator[str]:
    first = entry.groups[0]
    n_features = scale.training_of(first).expansion * scale.models[first.model].d_model
    makes_headlines = any(map(scale.makes_headlines, entry.groups))
    if not makes_headlines and any(d.headline for d in entry.dictionaries):
        yield (
            f"{key}: {entry.name} has a headline dictionary, expected a job with the scale's own "
            f"seed, rows, epochs and expansion, found {scale.variant(first).lstrip('_')}"
        )
    for dictionary in entry.dictionaries:
        where = f"{key}: {entry.name} has a {dictionary.kind}"
        if dictionary.k is not None and dictionary.k > n_features:
            yield f"{where} with k = {dictionary.k}, expected at most its {n_features} features"
        if (dictionary.kind in KINDS) != (key == "groups"):
            yield f"{where}; groups hold the paper's kinds ({', '.join(KINDS)}), extensions others"


def _of_names(scale: "Scale") -> Iterator[str]:
    """Each name is that of a file or folder, so none may occur twice."""
    imported = [transcoder.site for transcoder in scale.imported_transcoders]
    for what, named in (
        ("sites, circuit_sites and imported", [*scale.all_sites, *imported]),
        ("groups", scale.all_groups),
        ("dictionaries", scale.dictionaries),
        ("circuits.cases", scale.circuits.cases),
    ):
        for name, times in Counter(one.name for one in named).items():
            if times > 1:
                yield f"{what}: {name} is listed {times} times, expected once"


def _of_headlines(scale: "Scale") -> Iterator[str]:
    for site in scale.all_sites:
        headlines = Counter(d.kind for d in scale.dictionaries_of(site) if d.headline)
        for kind in KINDS if site in scale.sites else KINDS[:1]:
            if headlines[kind] != 1:
                yield (
                    f"groups: {site.name} has {headlines[kind]} headline dictionaries of kind "
                    f"{kind}, expected exactly 1"
                )


def _of_studies(scale: "Scale") -> Iterator[str]:
    if scale.greater_than is not None:
        name = scale.greater_than.model
        layers = [dictionary.site.layer for dictionary in scale.circuit_transcoders(name)]
        if 0 not in layers or len(layers) < 2:
            yield (
                f"greater_than.model: expected transcoders of {name} at layer 0 and at another "
                f"layer, found layers {layers}; add circuit_sites"
            )
    if scale.interpretability is not None:
        site = scale.interpretability.rated_site
        if site not in scale.sites:
            names = ", ".join(known.name for known in scale.sites) or "none"
            yield (
                f"interpretability.rated_site: expected one of sites ({names}), found {site.name}"
            )
        if 0 not in [entry.site.layer for entry in scale.headlines(site.model, "transcoder")]:
            yield (
                f"interpretability.rated_site: expected a transcoder at layer 0 of {site.model}, "
                "from which blind studies predict; add it to circuit_sites"
            )
