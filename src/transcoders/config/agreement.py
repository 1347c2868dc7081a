"""Checks that the sections of a scale agree with each other."""

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from transcoders.config.kinds import KINDS
from transcoders.config.sections import Group, Site

if TYPE_CHECKING:
    from transcoders.config.scale import Scale


def disagreements(scale: "Scale") -> Iterator[str]:
    """What in one section of a scale does not fit another: a sentence each, naming the key."""
    yield from _missing_for_training(scale)
    imported = [transcoder.site for transcoder in scale.imported_transcoders]
    for key, sites in (
        ("sites", scale.sites),
        ("circuit_sites", scale.circuit_sites),
        ("imported", imported),
    ):
        for site in sites:
            yield from _of_site(scale, site, key)
    for key in ("groups", "extensions", "learning_rates"):
        for group in getattr(scale, key):
            yield from _of_group(scale, group, key)
    for what, named in (
        ("sites, circuit_sites and imported", [*scale.all_sites, *imported]),
        ("groups", scale.all_groups),
        ("dictionaries", [*scale.dictionaries, *scale.learning_rate_dictionaries]),
        ("circuits.cases", scale.circuits.cases),
    ):
        for name, times in sorted(Counter(one.name for one in named).items()):
            if times > 1:
                yield f"{what}: {name} is listed {times} times, expected once"
    yield from _of_headlines(scale)
    yield from _of_circuits(scale)
    yield from _of_greater_than(scale)
    yield from _of_interpretability(scale)
    yield from _of_sizes(scale)


def _missing_for_training(scale: "Scale") -> Iterator[str]:
    if not scale.imported and not scale.groups:
        yield "groups: this key is missing; a scale trains groups, or has `imported` ones"
    for key in ("activations", "training", "evaluation", "sites"):
        if scale.all_groups and not getattr(scale, key):
            yield f"{key}: this key is missing; config/README.md says what it means"


def _of_model(scale: "Scale", name: str, key: str) -> Iterator[str]:
    if name not in scale.models:
        yield f"{key}: no model named {name!r} among {', '.join(scale.models)}"


def _of_site(scale: "Scale", site: Site, key: str) -> Iterator[str]:
    yield from _of_model(scale, site.model, key)
    n_layers = scale.models[site.model].n_layers
    if site.layer >= n_layers:
        yield (
            f"{key}: layer {site.layer} of {site.model}, expected a layer from 0 to "
            f"{n_layers - 1}, since the model has {n_layers}"
        )


def _of_group(scale: "Scale", group: Group, key: str) -> Iterator[str]:
    if group.site not in scale.all_sites:
        yield f"{key}: {group.name} names {group.site.name}, which is not among the sites"
    assert scale.training is not None
    n_features = scale.training.expansion * scale.models[group.site.model].d_model
    for entry in group.dictionaries:
        if entry.k is not None and entry.k > n_features:
            yield (
                f"{key}: {group.name} has a {entry.kind} with k = {entry.k}, expected at most "
                f"its {n_features} features"
            )
        if key == "learning_rates":
            if entry.learning_rate is None or entry.headline:
                yield (
                    f"{key}: {group.name} has a {entry.kind} without a learning_rate of its own, "
                    "or a headline one; expected dictionaries that differ in learning_rate"
                )
        elif (entry.kind in KINDS) != (key == "groups"):
            yield (
                f"{key}: {group.name} has a {entry.kind}; groups hold the paper's kinds "
                f"({', '.join(KINDS)}), extensions the others"
            )


def _of_headlines(scale: "Scale") -> Iterator[str]:
    for site in scale.all_sites:
        headlines = Counter(d.kind for d in scale.dictionaries_of(site) if d.headline)
        for kind in KINDS if site in scale.sites else KINDS[:1]:
            if headlines[kind] != 1:
                yield (
                    f"groups: {site.name} has {headlines[kind]} headline dictionaries of kind "
                    f"{kind}, expected exactly 1"
                )


def _of_circuits(scale: "Scale") -> Iterator[str]:
    for case in scale.circuits.cases:
        yield from _of_model(scale, case.model, f"circuits.cases: {case.name}")
    for check in scale.circuits.checks:
        yield from _of_model(scale, check.model, f"circuits.checks: {check.feature}")


def _of_greater_than(scale: "Scale") -> Iterator[str]:
    if scale.greater_than is None:
        return
    name = scale.greater_than.model
    yield from _of_model(scale, name, "greater_than.model")
    layers = [dictionary.site.layer for dictionary in scale.circuit_transcoders(name)]
    if 0 not in layers or len(layers) < 2:
        yield (
            f"greater_than.model: expected headline transcoders of {name} at layer 0 and at "
            f"least one more, found layers {layers}; add sites or circuit_sites"
        )


def _of_interpretability(scale: "Scale") -> Iterator[str]:
    if scale.interpretability is None:
        return
    site = scale.interpretability.rated_site
    if site not in scale.sites:
        names = ", ".join(known.name for known in scale.sites)
        yield (
            f"interpretability.rated_site is {site.name}, expected one of sites, where all "
            f"kinds are trained: {names or 'none'}"
        )
    if 0 not in [entry.site.layer for entry in scale.headlines(site.model, "transcoder")]:
        yield (
            f"interpretability.rated_site: expected a transcoder at layer 0 of {site.model}, "
            "from which blind studies predict; add it to circuit_sites"
        )


def _of_sizes(scale: "Scale") -> Iterator[str]:
    corpus, activations, training = scale.corpus, scale.activations, scale.training
    if scale.circuits.text_contexts > corpus.train_contexts:
        yield (
            f"circuits.text_contexts is {scale.circuits.text_contexts}, expected at most "
            f"corpus.train_contexts ({corpus.train_contexts})"
        )
    if activations is not None and activations.mode == "cache" and activations.disk_limit_gb:
        needed, limit = scale.cache_bytes / 1e9, activations.disk_limit_gb
        if needed > limit:
            yield (
                f"activations.mode is cache, which would take {needed:.0f} GB of disk, expected "
                f"at most activations.disk_limit_gb ({limit:g}); set mode to stream, or raise the "
                "limit"
            )
    if training is not None and training.precision == "tf32" and scale.device == "cpu":
        yield "training.precision is tf32, which only a GPU has; expected float32 or bf16"
    if training is not None and training.batch_tokens > corpus.train_tokens:
        yield (
            f"training.batch_tokens is {training.batch_tokens}, expected at most the "
            f"{corpus.train_tokens} training tokens that corpus.train_contexts gives"
        )
