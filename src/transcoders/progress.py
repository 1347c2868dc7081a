"""Progress of long work: a bar on a terminal, plain lines every few seconds in a log."""

import sys
from typing import Any

from tqdm import tqdm

LOG_INTERVAL_SECONDS = 15
LINE_FORMAT = "{desc}: {n_fmt}/{total_fmt} {unit}, {rate_fmt}, {remaining} left{postfix}"


def progress_bar(
    total: int | None, description: str, unit: str = "tok", *, initial: int = 0
) -> "tqdm[Any]":
    """A bar with rate and ETA that counts up to ``total`` units, from ``initial`` on.

    None stands for a total that nobody knows. Use as a context manager and call ``update(n)``;
    ``set_postfix(loss=...)`` adds fields. Where standard error is not a terminal, each refresh is a
    line of its own and they are far apart.
    """
    on_terminal = sys.stderr.isatty()
    return tqdm(
        total=total,
        initial=initial,
        desc=description,
        unit=unit,
        unit_scale=True,
        dynamic_ncols=on_terminal,
        mininterval=0.2 if on_terminal else LOG_INTERVAL_SECONDS,
        maxinterval=LOG_INTERVAL_SECONDS,
        file=sys.stderr if on_terminal else _LineWriter(),
        bar_format=None if on_terminal else LINE_FORMAT,
    )


class _LineWriter:
    """Turns the carriage returns with which tqdm redraws its bar into line ends."""

    def write(self, text: str) -> None:
        line = text.strip("\r\n ")
        if line:
            sys.stderr.write(line + "\n")

    def flush(self) -> None:
        sys.stderr.flush()
