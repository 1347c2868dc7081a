"""From cached activations to trained dictionaries.

Nothing here imports transformers or transformer_lens, whose import costs seconds of every job.
"""

from transcoders.training.batches import batches, steps_per_epoch
from transcoders.training.start import Scaling, fold_scaling, initial_weights, scaling_of
from transcoders.training.trainer import (
    TrainedDictionary,
    Trainer,
    reconstruction_loss,
    train_group,
)

__all__ = [
    "Scaling",
    "TrainedDictionary",
    "Trainer",
    "batches",
    "fold_scaling",
    "initial_weights",
    "reconstruction_loss",
    "scaling_of",
    "steps_per_epoch",
    "train_group",
]
