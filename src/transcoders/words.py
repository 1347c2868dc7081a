"""Lists, written out in sentences."""

from collections.abc import Sequence


def listed(names: Sequence[str], joint: str = "and") -> str:
    """Names one after another: ``a, b and c``."""
    *most, last = names
    return f"{', '.join(most)} {joint} {last}" if most else last


def listed_layers(layers: Sequence[str]) -> str:
    """Layers of one model: ``layer 12``, or ``layers 12, 20 and 24``."""
    return f"layer{'s' if len(layers) > 1 else ''} {listed(layers)}"
