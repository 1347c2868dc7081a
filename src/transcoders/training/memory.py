"""How much memory training takes, as an upper bound: to size groups of dictionaries to a GPU.

Each dictionary keeps its weights and Adam's two moments for the whole job; these are counted
exactly. The dictionaries of a group take their steps one after another, so only one of them needs
memory for a step at any moment. That memory is bounded by the larger of a dense and a sparse step.
"""

from transcoders.config import Training
from transcoders.dictionaries.entries import CHUNK_ENTRIES
from transcoders.training.adam import BLOCK_ENTRIES

FLOAT = 4
BYTES_PER_ENTRY = 64
"""Of an active entry in a sparse step: feature, token, value, gradient, their orderings, and the
copies while they are sorted and joined."""
VECTORS_PER_TOKEN = 12
"""Of width d_model in a step: inputs and targets, raw and scaled, the reconstruction, its error and
their copies."""


def dictionary_bytes(d_model: int, n_features: int) -> int:
    """Bytes that one dictionary keeps: weights and Adam's moments."""
    return 3 * FLOAT * (2 * d_model * n_features + n_features + d_model)


def step_bytes(d_model: int, n_features: int, training: Training, device: str = "cuda") -> int:
    """The largest number of bytes that one step of one dictionary needs besides."""
    tokens = training.batch_tokens
    entries = tokens * n_features
    chunk = min(entries, max(CHUNK_ENTRIES[device], tokens))
    # What is made for some features at a time: a product, which are active, rows of a gradient.
    in_chunks = (FLOAT + 2) * chunk + FLOAT * d_model * (chunk // tokens)
    z, of_entries = FLOAT * entries, BYTES_PER_ENTRY * int(training.sparse_below_density * entries)
    gradients = 2 * FLOAT * d_model * n_features
    block = FLOAT * 2 * min(BLOCK_ENTRIES[device], n_features * d_model)
    vectors = FLOAT * VECTORS_PER_TOKEN * tokens * d_model
    return max(z, of_entries) + in_chunks + gradients + block + vectors + FLOAT * 16 * n_features
