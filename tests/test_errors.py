"""What the system refuses, in words."""

import errno
import os

import pytest

from transcoders.errors import describe_os_error


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "free some space, and run again"),
        (errno.EDQUOT, "free some space, and run again"),
        (errno.EACCES, "see who may read and write it, and run again"),
        (errno.EROFS, "make it writable, and run again"),
        (errno.ENOENT, "run snakemake to make it, and run again"),
        (errno.EISDIR, "see what is wrong with it, and run again"),
    ],
)
def test_a_refusal_names_the_file_the_reason_and_what_to_do(number: int, remedy: str) -> None:
    error = OSError(number, os.strerror(number), "results/table.csv")
    assert describe_os_error(error) == f"results/table.csv: {os.strerror(number)}; {remedy}"


def test_an_error_without_a_file_or_a_number_is_described_too() -> None:
    assert describe_os_error(OSError("of some library")).startswith("a file: of some library; see")
