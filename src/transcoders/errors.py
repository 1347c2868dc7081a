"""The one exception that a user is meant to read."""


class UserError(Exception):
    """Something that the user can put right: a bad config, a missing file, a full disk.

    The message is one sentence or two that name the file or key, what was expected, what was
    found, and what to do. The command line prints it without a traceback and exits with status 1.
    """
