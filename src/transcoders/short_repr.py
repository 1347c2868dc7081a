"""Values from outside as texts that stay short, whatever the values are."""

import reprlib
from typing import Any


class _Short(reprlib.Repr):
    def repr_instance(self, x: Any, level: int) -> str:
        """Containers without a limit of their own show their type alone."""
        return f"<{type(x).__name__}>" if hasattr(x, "__len__") else super().repr_instance(x, level)


_SHORT = _Short()
_SHORT.maxlevel = 3
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxset = _SHORT.maxdict = 10
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = 100


def short_repr(value: Any) -> str:
    """As ``repr``, but short: lists nested in lists may stand for more than memory holds."""
    return _SHORT.repr(value)
