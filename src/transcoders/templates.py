"""Pages from Jinja templates, which lie beside the modules that use them."""

from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined

SCROLLING = '<div class="scroll" role="group" aria-label="Table" tabindex="0">'
"""Goes before a wide table, and ``</div>`` after it. The table scrolls by itself, so it has to be
within reach of the keyboard."""


def render(package: str, name: str, /, **values: Any) -> str:
    """Fill in the template ``name`` of a package. Values are escaped, except ``Markup``."""
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template(package, name)).render(**values)


def render_text(package: str, name: str, /, **values: Any) -> str:
    """Fill in a template of Markdown or YAML: nothing is escaped, and no value may be missing."""
    environment = Environment(
        trim_blocks=True, keep_trailing_newline=True, undefined=StrictUndefined
    )
    return environment.from_string(template(package, name)).render(**values)


def template(package: str, name: str) -> str:
    """A file that lies beside a package's modules."""
    return files(package).joinpath(name).read_text(encoding="utf-8")


def stylesheet() -> str:
    """The style that notebooks' pages and the landing page share."""
    return template("transcoders", "page.css")


def script() -> str:
    """What a reader can do with these pages."""
    return template("transcoders", "page.js")
