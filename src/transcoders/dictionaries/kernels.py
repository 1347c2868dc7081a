"""The inner loops of a sparse training step on a CPU, compiled by numba.

PyTorch would do them as one pass over the weights for each operation. Here a feature's row is
read once, and its gradient never leaves the processor's cache.

The results are the same bytes on every x86-64 processor with AVX2 and for any number of threads.
Without "fastmath" the compiler neither reorders a sum nor merges a product and a sum into one
rounding; sums along a row are kept as a fixed number of partial sums, so that they use vector
instructions all the same; threads share out rows or columns, never the terms of a sum.

Compiled code is not cached on disk: it takes two seconds a process, and a cache needs a folder
that can be written and files that are intact.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numba import njit

LANES = 64
"""Partial sums along a row: four vectors of AVX-512, eight of AVX2."""
SMALLEST_NORM = np.float32(1e-12)

compiled = njit(nogil=True, error_model="numpy")


def in_threads(kernel: Callable[..., None], n: int, *arguments: Any) -> None:
    """Call ``kernel(first, last, *arguments)`` on a part of 0 to n for each of torch's threads."""
    threads = torch.get_num_threads()
    if threads == 1:
        kernel(0, n, *arguments)
        return
    bounds = [n * thread // threads for thread in range(threads + 1)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda part: kernel(*part, *arguments), pairwise(bounds)))


@compiled
def count_active(first, last, products, b_enc, counts):
    """Tokens for which features first to last are active; NaN counts, so that the loss shows it.

    products (features, tokens) is W_encᵀ xᵀ; b_enc (features,); counts (features,) is written.
    """
    for i in range(first, last):
        row, bias = products[i], b_enc[i]
        n = 0
        for j in range(row.size):
            n += not (row[j] + bias <= 0)
        counts[i] = n


@compiled
def list_active(first, last, products, b_enc, start, token, value):
    """Write tokens and values of active entries, each feature's from start (features + 1) on."""
    for i in range(first, last):
        row, bias = products[i], b_enc[i]
        n = start[i]
        for j in range(row.size):
            z = row[j] + bias
            if not (z <= 0):
                token[n] = j
                value[n] = z
                n += 1


@compiled
def add_decoded(first, last, start, token, value, W_dec, y):
    """Add z W_dec to y (tokens, d_out), in columns first to last."""
    for i in range(len(W_dec)):
        row = W_dec[i, first:last]
        for entry in range(start[i], start[i + 1]):
            _add_scaled(y[token[entry], first:last], value[entry], row)


@compiled
def gradient_of_z(first, last, start, token, W_dec, r, l1, dz, b_enc):
    """For features first to last: dz = r · (row of W_dec) + l1 of each entry; b_enc is its sums."""
    partial = np.empty(LANES, W_dec.dtype)
    for i in range(first, last):
        for entry in range(start[i], start[i + 1]):
            dz[entry] = _dot(W_dec[i], r[token[entry]], partial) + l1
            b_enc[i] += dz[entry]


@compiled
def update_rows(
    first, last, start, token, z, dz, read, r, W_enc, m_enc, v_enc, W_dec, m_dec, v_dec, adam
):
    """Gradient, projection, Adam and renormalisation of rows first to last, in one pass.

    All are float32. W_enc (features, d_in) is transposed; m and v are Adam's moments, and adam is
    its constants.
    """
    of_enc = np.empty(W_enc.shape[1], np.float32)
    of_dec = np.empty(W_dec.shape[1], np.float32)
    partial = np.empty(LANES, np.float32)
    for i in range(first, last):
        of_enc[:] = 0
        of_dec[:] = 0
        for entry in range(start[i], start[i + 1]):
            _add_scaled(of_enc, dz[entry], read[token[entry]])
            _add_scaled(of_dec, z[entry], r[token[entry]])
        row = W_dec[i]
        _adam(W_enc[i], of_enc, np.float32(0), m_enc[i], v_enc[i], adam)
        _adam(row, of_dec, _dot(of_dec, row, partial), m_dec[i], v_dec[i], adam)
        scale = np.float32(1) / max(np.sqrt(_dot(row, row, partial)), SMALLEST_NORM)
        for j in range(row.size):
            row[j] *= scale


@compiled
def _adam(row, gradient, along, m, v, adam):
    """Update a row by its gradient less ``along`` times the row."""
    beta1, rest1, beta2, rest2, step_size, root_scale, epsilon = adam
    for j in range(row.size):
        g = gradient[j] - along * row[j]
        mean = beta1 * m[j] + rest1 * g
        square = beta2 * v[j] + rest2 * (g * g)
        m[j], v[j] = mean, square
        row[j] -= step_size * mean / (np.sqrt(square) * root_scale + epsilon)


@compiled
def _add_scaled(out, factor, row):
    for j in range(out.size):
        out[j] += factor * row[j]


@compiled
def _dot(a, b, partial):
    for lane in range(LANES):
        partial[lane] = 0
    whole = a.size // LANES * LANES
    for start in range(0, whole, LANES):
        for lane in range(LANES):
            partial[lane] += a[start + lane] * b[start + lane]
    for j in range(whole, a.size):
        partial[j - whole] += a[j] * b[j]
    half = LANES // 2
    while half:
        for lane in range(half):
            partial[lane] += partial[lane + half]
        half //= 2
    return partial[0]
