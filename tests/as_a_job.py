"""Makes a process like that of a job when it is imported, which must be before PyTorch is."""

from transcoders.process import set_environment

set_environment("avx2")
