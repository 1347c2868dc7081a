"""Command line: one subcommand per workflow rule.

Every subcommand takes the scale by name and finds all its paths through :mod:`transcoders.layout`,
so each can also be run by hand from the root of the repository. Subcommands import what computes
only when they run: `--help` and a refused scale file answer at once.
"""

import os
import sys
from io import TextIOWrapper

from transcoders.cli import circuits as circuits
from transcoders.cli import data as data
from transcoders.cli import dictionaries as dictionaries
from transcoders.cli import interpretability as interpretability
from transcoders.cli import pages as pages
from transcoders.cli import planning as planning
from transcoders.cli.app import app as app
from transcoders.errors import UserError, describe_os_error


def main() -> None:
    """Run the command line; what a user can put right becomes one message and exit status 1."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # a log holds our progress only
    if isinstance(sys.stdout, TextIOWrapper):  # some locales have no λ
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app()
    except UserError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {describe_os_error(error)}")
    except _too_little_memory() as error:
        sys.exit(
            f"error: too little memory ({error}); end other programs, or lower the sizes in "
            "the scale file"
        )


def _too_little_memory() -> tuple[type[Exception], ...]:
    """What Python raises, and what PyTorch raises on a GPU if it has been imported."""
    torch = sys.modules.get("torch")
    return (MemoryError, torch.OutOfMemoryError) if torch else (MemoryError,)
