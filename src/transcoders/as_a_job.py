"""Import this before PyTorch, and a process computes the bytes that jobs on the CPU compute.

For tests, and for scripts of your own.
"""

from transcoders.process import set_environment

set_environment("avx2")
