"""Transcoders that the paper's authors released, brought into this project's format.

A released file is a pickle, as ``torch.save`` writes it, of ``{"cfg": a configuration object,
"state_dict": tensors}``. A pickle can name any function and have it called on loading. PyTorch's
restricted loader (``weights_only``) refuses every name but those of tensors and plain values; the
configuration's class is the one name allowed besides, and stands for an empty class of ours, so
nothing from the file is ever called.

The released code subtracts a bias from the input first, as its SAEs do, and has another one for the
output:

    z = ReLU((x - b_dec) W_enc + b_enc)        y = z W_dec + b_dec_out

Ours has no bias before the encoder. Folding is exact: b_enc - b_dec W_enc takes the place of b_enc,
and b_dec_out that of b_dec.
"""

import pickle
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from transcoders.checksums import sha256
from transcoders.config import ImportedTranscoder, Model
from transcoders.dictionaries import SparseDictionary
from transcoders.errors import UserError
from transcoders.files import check_disk
from transcoders.short_repr import short_repr
from transcoders.sources import fetch_from_hub

RELEASED_CLASS = "sae_training.config.LanguageModelSAERunnerConfig"


class ReleasedConfig:
    """Stands for the configuration class of the released code; holds its fields, does nothing."""


def import_transcoder(entry: ImportedTranscoder, model: Model, destination: Path) -> None:
    """Fetch a released transcoder and save it in this project's format.

    Args:
        entry: repository, file and width.
        model: whose MLP it imitates.
        destination: folder of the dictionary; it appears whole or not at all.

    Raises:
        UserError: the hub cannot be reached, or the file is not what is expected.
    """
    check_disk(destination.parent, 3 * 4 * 2 * model.d_model * entry.n_features, "a transcoder")
    path = fetch_from_hub(entry.source, [entry.file]) / entry.file
    dictionary, released = load_released(path, model.d_model, entry.n_features)
    layer = entry.site.layer
    record = {
        "metadata": {
            "model_name": entry.site.model,
            "hook_name": f"blocks.{layer}.ln2.hook_normalized",
            "hook_name_out": f"blocks.{layer}.hook_mlp_out",
        },
        "imported": {
            **entry.source.model_dump(exclude={"sha256"}),
            "file": entry.file,
            "sha256": sha256(path),
            "configuration": released,
        },
    }
    dictionary.save_pretrained(destination, record)


def load_released(
    path: Path, d_model: int, n_features: int
) -> tuple[SparseDictionary, dict[str, Any]]:
    """Read a released file without running anything from it, and fold its input bias.

    Returns:
        The transcoder, and those fields of its configuration that are plain values.

    Raises:
        UserError: the file is damaged or names a class or function that is not expected, or its
            tensors have other names, shapes or types, or values that are not finite.
    """
    content = _read(path)
    if not isinstance(content, dict) or not {"cfg", "state_dict"} <= set(content):
        found = list(content) if isinstance(content, dict) else content
        raise UserError(
            f"{path}: expected a mapping with cfg and state_dict, found {short_repr(found)}"
        )
    released, state = content["cfg"], content["state_dict"]
    tensors = {
        str(name): tensor
        for name, tensor in (state.items() if isinstance(state, dict) else ())
        if isinstance(tensor, Tensor)
        and tensor.is_floating_point()
        and tensor.layout == torch.strided
        and tensor.device.type == "cpu"
    }
    expected = {
        "W_enc": (d_model, n_features),
        "b_enc": (n_features,),
        "W_dec": (n_features, d_model),
        "b_dec": (d_model,),
        "b_dec_out": (d_model,),
    }
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if shapes != expected:
        raise UserError(
            f"{path}: expected floating-point tensors of shapes {expected}, found "
            f"{short_repr(shapes)}; correct n_features or file in the scale file"
        )
    exact = {name: tensors[name].double() for name in expected}
    dictionary = SparseDictionary(
        "transcoder",
        W_enc=tensors["W_enc"].float(),
        b_enc=(exact["b_enc"] - exact["b_dec"] @ exact["W_enc"]).float(),
        W_dec=tensors["W_dec"].float(),
        b_dec=exact["b_dec_out"].float(),
    )
    for name, tensor in dictionary.state_dict().items():
        if not tensor.isfinite().all():
            raise UserError(
                f"{path}: expected finite numbers in float32, found others in {name}; delete the "
                "file from the hub's cache and run again"
            )
    fields = vars(released) if isinstance(released, ReleasedConfig) else {}
    return dictionary, {name: _plain(value) for name, value in sorted(fields.items())}


def _read(path: Path) -> Any:
    allowed: list[Any] = [(ReleasedConfig, RELEASED_CLASS)]
    try:
        with torch.serialization.safe_globals(allowed):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL (\S{1,100})", str(error))
        raise UserError(
            f"{path}: refused, since it holds more than tensors and plain values"
            f"{': it names ' + named[1] if named else ''}; do not open it by other means"
        ) from None
    except Exception as error:  # whatever a damaged file makes the loader raise
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"{path}: cannot be read ({type(error).__name__}: {reason}); delete it from the hub's "
            "cache and run again"
        ) from None


def _plain(value: Any) -> Any:
    """A value of the configuration as JSON can hold it."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value) if isinstance(value, torch.dtype | torch.device) else short_repr(value)
