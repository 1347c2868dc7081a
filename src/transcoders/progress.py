"""Progress of long work: a bar on a terminal, plain lines every few seconds in a log."""

import sys
from typing import Any

from tqdm import tqdm

LINE = "{desc}: {n_fmt}/{total_fmt} {unit}, {rate_fmt}, {remaining} left{postfix}"


def progress_bar(
    total: int | None, description: str, unit: str = "tok", *, initial: int = 0
) -> "tqdm[Any]":
    """A bar with rate and ETA that counts up to ``total`` units, from ``initial`` on.

    ``total`` is None if nobody knows it. Use as a context manager and call ``update(n)``;
    ``set_postfix(loss=...)`` adds fields. Where standard error is not a terminal, each refresh is a
    line of its own, and 15 seconds lie between two.
    """
    on_terminal = sys.stderr.isatty()
    return tqdm(
        total=total, initial=initial, desc=description, unit=unit, unit_scale=True,
        dynamic_ncols=on_terminal, mininterval=0.2 if on_terminal else 15, maxinterval=15,
        file=sys.stderr if on_terminal else _Lines(), bar_format=None if on_terminal else LINE,
    )  # fmt: skip


class _Lines:
    """Turns the carriage returns with which tqdm redraws its bar into line ends."""

    def write(self, text: str) -> None:
        if line := text.strip("\r\n "):
            print(line, file=sys.stderr, flush=True)
