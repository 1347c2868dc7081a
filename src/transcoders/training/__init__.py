"""From cached activations to trained dictionaries.

Nothing here imports transformers or transformer_lens, whose import costs seconds of every job.
"""

from transcoders.training.batches import batches, steps_per_epoch
from transcoders.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from transcoders.training.gradients import (
    Gradients,
    Objective,
    dense_gradients,
    sparse_gradients,
)
from transcoders.training.group import train_group
from transcoders.training.start import Scaling, fold_scaling, initial_weights, scaling_of
from transcoders.training.trainer import TrainedDictionary, Trainer

__all__ = [
    "Checkpoint",
    "Gradients",
    "Objective",
    "Scaling",
    "TrainedDictionary",
    "Trainer",
    "batches",
    "dense_gradients",
    "fold_scaling",
    "initial_weights",
    "load_checkpoint",
    "save_checkpoint",
    "scaling_of",
    "sparse_gradients",
    "steps_per_epoch",
    "train_group",
]
