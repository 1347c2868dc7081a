"""Pages from Jinja templates, which lie beside the modules that use them."""

from importlib.resources import files
from typing import Any

from jinja2 import Environment


def render(package: str, name: str, **values: Any) -> str:
    """Fill in the template ``name`` of a package. Values are escaped, except ``Markup``."""
    template = files(package).joinpath(name).read_text(encoding="utf-8")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(**values)


def stylesheet() -> str:
    """The style that notebooks' pages and the landing page share."""
    return files("transcoders").joinpath("page.css").read_text(encoding="utf-8")
