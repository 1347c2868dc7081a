"""From activations to trained dictionaries.

Nothing here imports transformers or transformer_lens, whose import costs seconds of every job.
"""

from transcoders.training.batches import batches, steps_per_epoch
from transcoders.training.group import train_dictionary, train_group
from transcoders.training.trainer import Trainer

__all__ = ["Trainer", "batches", "steps_per_epoch", "train_dictionary", "train_group"]
