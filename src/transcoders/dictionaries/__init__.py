"""Transcoders and sparse autoencoders: one module, its loss, and the gradients of the loss."""

from transcoders.dictionaries.sparse_dictionary import SAELENS_FORMAT, SparseDictionary

__all__ = ["SAELENS_FORMAT", "SparseDictionary"]
