"""Values from outside as texts that stay short, whatever they are."""

import reprlib
from typing import Any

LONGEST_INTEGER = 200
"""Bits. Python itself refuses to write one of thousands of digits."""


class _Short(reprlib.Repr):
    """As ``repr``, with ``...`` in place of what would make it long."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxlist = self.maxtuple = self.maxset = self.maxdict = 10
        self.maxstring = self.maxlong = self.maxother = 100

    def repr_int(self, x: int, level: int) -> str:
        bits = x.bit_length()
        return (
            f"an integer of {bits} bits" if bits > LONGEST_INTEGER else super().repr_int(x, level)
        )

    def repr_bytes(self, x: bytes, level: int) -> str:  # noqa: ARG002
        return repr(x[: self.maxstring])

    def repr_instance(self, x: Any, level: int) -> str:
        """Of containers without a limit of their own, the type alone."""
        return f"<{type(x).__name__}>" if hasattr(x, "__len__") else super().repr_instance(x, level)


def short_repr(value: Any) -> str:
    """As ``repr``, but short: lists nested in lists may stand for more than memory holds."""
    return _Short().repr(value)
