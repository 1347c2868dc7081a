"""A dictionary in place of an MLP.

Three kinds, three places: a transcoder replaces the MLP, an SAE on the MLP's output replaces that
output by its reconstruction, an SAE on the MLP's input replaces that input, and the MLP then runs
on the reconstruction. All three come down to another MLP output for the same tokens.

Positions before ``first_position`` (BOS, where a scale leaves it out of training) keep the MLP's
own output: a dictionary that never saw a position is not asked to stand in for it.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from transcoders.dictionaries import SparseDictionary
from transcoders.models import LanguageModel, SitePass, mlp_out_for


class Spliced(NamedTuple):
    """What a dictionary does at one site on one batch, at the positions where it is spliced in."""

    mlp_out: Float[Tensor, "batch position d_model"]
    """The MLP's output to continue with, at all positions."""
    z: Float[Tensor, "batch spliced n_features"]
    reconstruction: Float[Tensor, "batch spliced d_model"]
    target: Float[Tensor, "batch spliced d_model"]
    """What the dictionary was trained to give: its own target, not the MLP's output."""


@torch.inference_mode()
def splice(
    dictionary: SparseDictionary,
    site: SitePass,
    model: LanguageModel,
    layer: int,
    *,
    first_position: int,
) -> Spliced:
    """Put a dictionary in place of a layer's MLP.

    Args:
        dictionary: of any kind, trained at this layer.
        site: the unmodified model's pass.
        model: whose MLP an SAE on the input feeds.
        layer: of the MLP.
        first_position: earlier positions are left as they are.
    """
    traits = dictionary.traits
    source = getattr(site.activations, traits.reads)[:, first_position:]
    target = getattr(site.activations, traits.imitates)[:, first_position:]
    z = dictionary.encode(source)
    reconstruction = dictionary.decode(z, source)
    if traits.imitates == "mlp_in":
        read = replace_from(site.activations.mlp_in, reconstruction, first_position)
        replaced = mlp_out_for(model, site, layer, read)[:, first_position:]
    else:
        replaced = reconstruction
    return Spliced(
        mlp_out=replace_from(site.activations.mlp_out, replaced, first_position),
        z=z,
        reconstruction=reconstruction,
        target=target,
    )


def replace_from(
    tensor: Float[Tensor, "batch position d_model"],
    replacement: Tensor,
    first_position: int,
) -> Float[Tensor, "batch position d_model"]:
    """``tensor`` with all positions from ``first_position`` on replaced (broadcasting)."""
    replaced = tensor.clone()
    replaced[:, first_position:] = replacement
    return replaced
