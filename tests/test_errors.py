"""What the system refuses, in words, and values that stay short."""

import errno
import os

import pytest

from transcoders.errors import describe_os_error
from transcoders.short_repr import short_repr


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EACCES, "see who may read and write it"),
        (errno.EROFS, "make it writable"),
        (errno.ENOENT, "run snakemake to make it"),
        (errno.EISDIR, "see what is wrong with it"),
    ],
)
def test_a_refusal_names_the_file_the_reason_and_what_to_do(number, remedy):
    described = describe_os_error(OSError(number, os.strerror(number), "results/table.csv"))
    assert described == f"results/table.csv: {os.strerror(number)}; {remedy}, and run again"
    assert describe_os_error(OSError("of a library")).startswith("a file: of a library; see")


def test_a_value_of_any_size_is_written_short():
    nested = [1]
    for _ in range(100):
        nested = [nested, nested]
    values = (nested, 10**4000, "x" * 10**6, b"x" * 10**6, dict.fromkeys(range(1000)), object())
    assert all(len(short_repr(value)) < 300 for value in values)
    assert short_repr({"a": [1, "b"]}) == "{'a': [1, 'b']}"
