"""Transcoders and sparse autoencoders: one module, its loss, and the gradients of the loss."""

from transcoders.dictionaries.sparse_dictionary import SAELENS_FORMAT as SAELENS_FORMAT
from transcoders.dictionaries.sparse_dictionary import SparseDictionary as SparseDictionary
