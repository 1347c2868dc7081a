"""Transcoders and sparse autoencoders: one module, and its loss."""

from transcoders.dictionaries.loss import Loss, RowGradients
from transcoders.dictionaries.sparse_dictionary import SAELENS_FORMAT, SparseDictionary

__all__ = ["SAELENS_FORMAT", "Loss", "RowGradients", "SparseDictionary"]
