"""The training job of a scale: a group's dictionaries, with a record of how they were made."""

from typing import Any

from transcoders.activations import ActivationCache, ActivationStream, open_activations
from transcoders.config import Dictionary, Group, Scale
from transcoders.environment import device_name, package_versions
from transcoders.files import made_sha256
from transcoders.layout import Layout
from transcoders.training.batches import steps_per_epoch
from transcoders.training.group import train_group


def train_group_of(scale: Scale, layout: Layout, group: Group, *, device: str = "cpu") -> None:
    """Train the dictionaries of a group and write them, each with its record and its curve.

    A killed job goes on from its last checkpoint.

    Raises:
        UserError: the activations are missing, damaged or of another number of tokens, or the
            training fails.
    """
    entries = scale.dictionaries_in(group)
    activations = open_activations(scale, layout, group, device)
    # Before the training, so that a damaged manifest is refused in the first second.
    shared = _shared_record(scale, layout, group, activations, device)
    checkpoint = layout.checkpoint(group.name)
    trained = train_group(
        entries,
        activations,
        scale.training_of(group),
        seed=scale.seed_of(group),
        device=device,
        checkpoint=checkpoint,
        inputs={
            "activations": [
                {key: record[key] for key in ("sources", "files")} for record in activations.records
            ],
            "train_contexts": scale.contexts_of(group),
            "instruction_set": scale.instruction_set,
            "threads": scale.resources.train.threads,
        },
    )
    by_site = {record["site"]: record for record in activations.records}
    for entry, result in zip(entries, trained, strict=True):
        own = {"l1_coefficient": entry.l1_coefficient, "k": entry.k}
        if entry.learning_rate is not None:
            own["learning_rate"] = entry.learning_rate
        result.dictionary.save_pretrained(
            layout.dictionary(entry.name),
            {
                "metadata": _metadata(entry, by_site[entry.site.name], scale.corpus.context_length),
                "training": shared | own,
            },
            training_csv=result.training_csv,
        )
    checkpoint.unlink(missing_ok=True)


def _shared_record(
    scale: Scale,
    layout: Layout,
    group: Group,
    activations: ActivationCache | ActivationStream,
    device: str,
) -> dict[str, Any]:
    """How all dictionaries of a group were trained."""
    training = scale.training_of(group)
    tokens_different = steps_per_epoch(activations.n_tokens, training) * training.batch_tokens
    assert scale.activations is not None
    return {
        "scale": scale.name,
        "seed": scale.seed_of(group),
        "train_contexts": scale.contexts_of(group),
        "tokens_trained": tokens_different * training.epochs,
        "tokens_different": tokens_different,
        **training.model_dump(mode="json", exclude_none=True),
        "train_positions": scale.corpus.train_positions,
        "activations_dtype": scale.activations.dtype,
        "activations_of_sha256": activations.records[0]["sources"],
        "corpus_manifest_sha256": made_sha256(layout.corpus_manifest),
        "instruction_set": scale.instruction_set,
        "threads": scale.resources.train.threads,
        "device": device_name(device),
        "versions": package_versions("torch", "numpy", "numba", "safetensors"),
    }


def _metadata(
    entry: Dictionary, activations: dict[str, Any], context_length: int
) -> dict[str, Any]:
    """Which activations a dictionary reads and imitates, in SAELens's words."""
    layer = f"blocks.{entry.site.layer}"
    hooks = {
        "mlp_in": activations.get("mlp_input", f"{layer}.ln2.hook_normalized"),
        "mlp_out": f"{layer}.hook_mlp_out",
    }
    return {
        "model_name": entry.site.model,
        "hook_name": hooks[entry.traits.reads],
        "hook_name_out": hooks[entry.traits.imitates],
        "prepend_bos": True,
        "context_size": context_length,
    }
