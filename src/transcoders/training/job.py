"""The training job of a scale: a group's dictionaries, with a record of how they were made."""

from typing import Any

from transcoders.activations.of_scale import open_activations
from transcoders.config import Dictionary, Group, Scale
from transcoders.environment import device_name, package_versions
from transcoders.errors import UserError
from transcoders.files import made_sha256
from transcoders.layout import Layout
from transcoders.training.batches import steps_per_epoch
from transcoders.training.group import train_group

HOOKS = {"mlp_in": "ln2.hook_normalized", "mlp_out": "hook_mlp_out"}
"""What SAELens calls the two sides of an MLP."""


def train_group_of(scale: Scale, layout: Layout, group: Group, *, device: str = "cpu") -> None:
    """Train the dictionaries of a group and write them, each with its record and its curve.

    A killed job goes on from its last checkpoint.

    Raises:
        UserError: the activations are missing, damaged or of another number of tokens, or the
            training fails.
    """
    training = scale.training_of(group)
    activations = open_activations(scale, layout, group.site, device)
    if activations.n_tokens != scale.corpus.train_tokens:
        raise UserError(
            f"{layout.activations(group.site.name)}: expected {scale.corpus.train_tokens} tokens, "
            f"as the scale file says, found {activations.n_tokens}; delete the folder and run again"
        )
    entries = scale.dictionaries_in(group)
    checkpoint = layout.checkpoint(group.name)
    threads = scale.resources.train.threads
    trained = train_group(
        entries,
        activations,
        training,
        seed=scale.seed,
        device=device,
        checkpoint=checkpoint,
        inputs={
            "activations": {key: activations.record[key] for key in ("sources", "files")},
            "threads": threads,
        },
    )
    steps = steps_per_epoch(activations.n_tokens, training) * training.epochs
    assert scale.activations is not None
    shared = {
        "scale": scale.name,
        "seed": scale.seed,
        "tokens_trained": steps * training.batch_tokens,
        "tokens_different": steps * training.batch_tokens // training.epochs,
        **training.model_dump(mode="json", exclude_none=True),
        "train_positions": scale.corpus.train_positions,
        "activations_dtype": scale.activations.dtype,
        "activations_of_sha256": activations.record["sources"],
        "corpus_manifest_sha256": made_sha256(layout.corpus_manifest),
        "threads": threads,
        "device": device_name(device),
        "versions": package_versions("torch", "numpy", "numba", "safetensors"),
    }
    for entry, result in zip(entries, trained, strict=True):
        own = {"l1_coefficient": entry.l1_coefficient, "k": entry.k}
        if entry.learning_rate is not None:
            own["learning_rate"] = entry.learning_rate
        result.dictionary.save_pretrained(
            layout.dictionary(entry.name),
            {
                "metadata": _metadata(entry, scale.corpus.context_length),
                "training": shared | own,
            },
            training_csv=result.training_csv,
        )
    checkpoint.unlink(missing_ok=True)


def _metadata(entry: Dictionary, context_length: int) -> dict[str, Any]:
    """Which activations a dictionary reads and imitates, in SAELens's words."""
    layer = f"blocks.{entry.site.layer}"
    return {
        "model_name": entry.site.model,
        "hook_name": f"{layer}.{HOOKS[entry.traits.reads]}",
        "hook_name_out": f"{layer}.{HOOKS[entry.traits.imitates]}",
        "prepend_bos": True,
        "context_size": context_length,
    }
