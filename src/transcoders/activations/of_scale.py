"""The activations that a scale's training reads, whether they are cached or streamed."""

from transcoders.activations.cache import ActivationCache
from transcoders.activations.stream import ActivationStream
from transcoders.config import Scale, Site
from transcoders.files import read_json
from transcoders.layout import Layout


def open_activations(
    scale: Scale, layout: Layout, site: Site, device: str
) -> ActivationCache | ActivationStream:
    """Open the activations of a site, as the scale says how they reach the training.

    Raises:
        UserError: they are missing, damaged, or made from something else.
    """
    folder = layout.activations(site.name)
    assert scale.activations is not None  # there are groups
    if scale.activations.mode == "cache":
        return ActivationCache(folder)
    # Only here: the libraries behind it take seconds to import.
    from transcoders.corpus import load_rows
    from transcoders.models import load_model

    return ActivationStream(
        load_model(layout.model(site.model), device=device),
        site,
        load_rows(layout.tokens(site.model), "train"),
        folder,
        scale.activations,
        scale.corpus,
        sources=sources_of_activations(layout, site.model),
        device=device,
    )


def sources_of_activations(layout: Layout, model: str) -> dict[str, str]:
    """SHA-256 of the tokens and weights from which a model's activations are made."""
    return {
        "tokens": read_json(layout.tokens(model) / "tokens.json")["train"]["sha256"],
        "model": read_json(layout.model(model) / "source.json")["files"]["model.safetensors"],
    }
