"""From activations to trained dictionaries.

Nothing here imports transformers or transformer_lens, whose import costs seconds of every job.
"""

from transcoders.training.batches import batches as batches
from transcoders.training.batches import steps_per_epoch as steps_per_epoch
from transcoders.training.group import train_dictionary as train_dictionary
from transcoders.training.group import train_group as train_group
from transcoders.training.trainer import Trainer as Trainer
