"""A dictionary in place of an MLP.

Each kind has its place. A transcoder replaces the MLP. An SAE on the MLP's output replaces that
output by its reconstruction. An SAE on the MLP's input replaces that input, and the MLP runs on the
reconstruction. In every case, the model goes on with another MLP output for the same tokens.

Positions before ``first_position`` keep the MLP's own output, since the dictionary was not trained
on them (BOS, where a scale leaves it out of training).
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from transcoders.dictionaries import SparseDictionary
from transcoders.models import LanguageModel, SitePass, mlp_out_for


class Spliced(NamedTuple):
    """What a dictionary does at one site on one batch."""

    mlp_out: Float[Tensor, "batch position d_model"]
    """The output to go on with, at all positions. The others are at the spliced ones."""
    z: Float[Tensor, "batch spliced n_features"]
    reconstruction: Float[Tensor, "batch spliced d_model"]
    target: Float[Tensor, "batch spliced d_model"]
    """What the dictionary was trained to give, which is not always the MLP's output."""


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
    reconstruction = dictionary.decode(z, site.activations.mlp_in[:, first_position:])
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
