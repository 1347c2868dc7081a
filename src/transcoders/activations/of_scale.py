"""The activations that a scale's training reads, whether they are cached or streamed."""

from transcoders.activations.cache import ActivationCache
from transcoders.activations.stream import ActivationStream
from transcoders.config import Group, Scale
from transcoders.files import read_json
from transcoders.layout import Layout


def open_activations(
    scale: Scale, layout: Layout, group: Group, device: str
) -> ActivationCache | ActivationStream:
    """Open the activations that a group trains on, as the scale says how they reach it.

    Raises:
        UserError: they are missing, damaged, too few, or made from something else.
    """
    folders = {site: layout.activations(site.name) for site in group.sites}
    n_tokens = scale.contexts_of(group) * scale.corpus.trained_positions
    if not scale.streams(group):
        return ActivationCache(folders[group.sites[0]], n_tokens)
    # Only here: the libraries behind it take seconds to import.
    from transcoders.corpus import load_rows
    from transcoders.models import load_model

    assert scale.activations is not None  # there is a group
    return ActivationStream(
        load_model(layout.model(group.model), device=device),
        folders,
        load_rows(layout.tokens(group.model), "train"),
        scale.activations,
        scale.corpus,
        sources=sources_of_activations(layout, group.model),
        n_tokens=n_tokens,
        device=device,
    )


def sources_of_activations(layout: Layout, model: str) -> dict[str, str]:
    """SHA-256 of the tokens and weights from which a model's activations are made."""
    return {
        "tokens": read_json(layout.tokens(model) / "tokens.json")["train"]["sha256"],
        "model": read_json(layout.model(model) / "source.json")["files"]["model.safetensors"],
    }
