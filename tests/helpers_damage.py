"""What can happen to a file after it was written."""

from pathlib import Path

import pytest


def truncate(path):
    """Cut off its end."""
    path.write_bytes(path.read_bytes()[:-7])


def flip_a_bit(path):
    """Change one bit of its last byte."""
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


EVERY_DAMAGE = pytest.mark.parametrize("damage", [Path.unlink, truncate, flip_a_bit])
