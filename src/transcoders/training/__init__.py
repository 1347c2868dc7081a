"""From cached activations to trained dictionaries.

Nothing here imports transformers or transformer_lens, whose import costs seconds of every job.
"""

from transcoders.training.adam import DictionaryAdam
from transcoders.training.batches import batches, steps_per_epoch
from transcoders.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from transcoders.training.group import train_group
from transcoders.training.initialization import (
    Scaling,
    fold_scaling,
    initial_dictionary,
    scaling_of,
)
from transcoders.training.single import train_dictionary
from transcoders.training.trainer import TrainedDictionary, Trainer

__all__ = [
    "Checkpoint",
    "DictionaryAdam",
    "Scaling",
    "TrainedDictionary",
    "Trainer",
    "batches",
    "fold_scaling",
    "initial_dictionary",
    "load_checkpoint",
    "save_checkpoint",
    "scaling_of",
    "steps_per_epoch",
    "train_dictionary",
    "train_group",
]
