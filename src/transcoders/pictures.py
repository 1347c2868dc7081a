"""PNG files that are small enough for pages."""

from pathlib import Path

COLOURS = 256
"""As many as a byte can tell apart. Plain areas keep their colours; edges of letters may not."""


def write_small(path: Path) -> None:
    """Write a PNG file again with a palette, without transparency, times and versions."""
    from PIL import Image

    with Image.open(path) as picture:
        indexed = picture.convert("RGB").quantize(
            COLOURS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE
        )
    indexed.save(path, format="PNG", optimize=True, dpi=picture.info.get("dpi"))
