"""The one exception that a user is meant to read, and the system's errors in the same words."""

import errno


class UserError(Exception):
    """Something that the user can put right: a bad config, a missing file, a full disk.

    The message is one sentence or two that name the file or key, what was expected, what was
    found, and what to do. The command line prints it without a traceback and exits with status 1.
    """


def describe_os_error(error: OSError) -> str:
    """What the system refused, for which file, and what to do about it."""
    remedies = {
        errno.ENOSPC: "free some space",
        errno.EDQUOT: "free some space",
        errno.EACCES: "see who may read and write it",
        errno.EPERM: "see who may read and write it",
        errno.EROFS: "make it writable",
        errno.ENOENT: "run snakemake to make it",
    }
    where = error.filename or "a file"
    remedy = remedies.get(error.errno or 0, "see what is wrong with it")
    return f"{where}: {error.strerror or error}; {remedy}, and run again"
