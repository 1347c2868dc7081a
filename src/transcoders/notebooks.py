"""Execution of the notebooks in ``workflow/notebooks``, and pages made from them.

Notebooks run here rather than under Snakemake's ``notebook:``, so that their copies hold no
absolute path and no time. Pages need no network and can be read without a script. Formulas become
MathML, which browsers draw themselves, and pictures are embedded.
"""

import builtins
import copy
import os
import re
import sys
from base64 import b64decode
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from markupsafe import Markup

from transcoders.contents import Place, caption_of, whole_of
from transcoders.errors import UserError
from transcoders.files import made_path
from transcoders.templates import render, script, stylesheet, template

SOURCES = Path("workflow/notebooks")
TIMEOUT_SECONDS = 600
MATHS = re.compile(
    r"(```.*?```|`[^`\n]+`)"  # code is left alone
    r"|\$\$(.+?)\$\$"
    r"|(?<!\\)\$(?!\s)([^$\n]+?)(?<![\s\\])\$(?!\d)",  # and so are prices
    re.DOTALL,
)
HEADINGS = re.compile(r'<h([23]) id="([^"]+)">(.*?)</h', re.DOTALL)


def run_notebook(name: str, scale: str, destination: Path, place: Place | None = None) -> None:
    """Execute a notebook and write ``destination`` (``.ipynb``) and the page beside it (``.html``).

    The cell tagged ``parameters`` is replaced by ``SCALE = "<scale>"``.

    Raises:
        UserError: there is no such notebook, or a cell fails. The message holds the cell's error.
    """
    import nbformat

    source = SOURCES / f"{name}.ipynb"
    if not source.exists():
        known = ", ".join(sorted(path.stem for path in SOURCES.glob("*.ipynb")))
        raise UserError(f"{source}: no such notebook; expected one of {known}")
    notebook = nbformat.read(source, as_version=4)
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", []):
            cell.source = f'SCALE = "{scale}"'
    print(f"executing {source} at scale {scale}", file=sys.stderr)
    execute_notebook(notebook, str(source), destination, place)


def execute_notebook(
    notebook: Any, source: str, destination: Path, place: Place | None = None
) -> None:
    """Execute an nbformat notebook; write it and the page beside it.

    Raises:
        UserError: a cell fails, takes over ten minutes or ends its process. The message names
            ``source`` and holds the error.
    """
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
    from traitlets.config import Config

    with TemporaryDirectory(prefix="kernel-") as folder:
        # Over TCP, two kernels that start at once may get the same port, and one of them dies.
        sockets = {"transport": "ipc", "connection_file": f"{folder}/kernel.json"}
        client = NotebookClient(
            notebook, timeout=TIMEOUT_SECONDS, kernel_name="python3", record_timing=False,
            config=Config(KernelManager=sockets),
        )  # fmt: skip
        try:
            # Away from the user's own settings and start-up files.
            client.execute(cwd=str(Path.cwd()), env=os.environ | {"IPYTHONDIR": folder})
        except CellExecutionError as error:
            raise UserError(f"{source}: {_what_failed(error.ename, error.evalue, error)}") from None
        except (CellTimeoutError, DeadKernelError) as error:
            raise UserError(f"{source}: a cell failed\n{error}") from None
    # The patch release of Python says nothing about the result.
    notebook.metadata.pop("language_info", None)
    page = render_page(notebook, place)
    with made_path(destination) as temporary:
        nbformat.write(notebook, temporary)
    with made_path(destination.with_suffix(".html")) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _what_failed(name: str, text: str, error: Exception) -> str:
    """One sentence for an error that the user can put right; the whole error otherwise."""
    if name == UserError.__name__:
        return text
    if issubclass(getattr(builtins, name, Exception), OSError):
        return f"{text}; see whether it may be read and written, and run again"
    return f"a cell failed\n{error}"


def render_page(notebook: Any, place: Place | None = None) -> str:
    """An executed notebook as one self-contained HTML page, which can be read without its script.

    Args:
        notebook: from nbformat. It stays as it is.
        place: of the page among others. None for a page that stands alone.
    """
    from nbconvert import HTMLExporter

    rendered = copy.deepcopy(notebook)
    for cell in rendered.cells:
        if cell.cell_type == "markdown":
            cell.source = maths_to_mathml(cell.source)
    _name_pictures(rendered.cells, place)
    cells = template("transcoders", "cells.html.j2")
    exporter = HTMLExporter(template_name="basic", raw_template=cells)
    body, _ = exporter.from_notebook_node(rendered)
    # Without anchor links, nbconvert leaves out the headings' ids too.
    body = re.sub(r'<a class="anchor-link".*?</a>', "", body)
    body = body.replace("<th></th>", "<td></td>")  # pandas heads the index with nothing
    body = re.sub(r"<script.*?</script>", "", body, flags=re.DOTALL | re.IGNORECASE)
    title = re.search(r"^# (.+)$", notebook.cells[0].source, re.MULTILINE)
    page = render(
        "transcoders",
        "notebook.html.j2",
        title=title.group(1) if title else "Notebook",
        style=Markup(f"{stylesheet()}\n{_highlight()}"),
        script=Markup(script()),
        place=place,
        headings=[(level, id_, Markup(text)) for level, id_, text in HEADINGS.findall(body)],
        body=Markup(body.strip()),
    )
    return page + "\n"


def _name_pictures(cells: list[Any], place: Place | None) -> None:
    """Note what each picture shows, and which file of the scale's figures it is, if it is one."""
    files = sorted(place.figures.glob("*.png")) if place and place.figures else []
    names = {file.read_bytes(): file.stem for file in files}
    heading = "A picture"
    for cell in cells:
        headings = re.findall(r"^#+ (.+)$", cell.source, re.MULTILINE)
        if cell.cell_type == "markdown" and headings:
            heading = headings[-1]
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                name = names.get(b64decode(output.data["image/png"]))
                output.metadata["picture"] = {
                    "caption": caption_of(name) if name else f"Picture: {heading}",
                    "file": f"{place.to_figures}/{whole_of(name)}" if place and name else None,
                }


def _highlight() -> str:
    """Colours of code, by day and by night."""
    from pygments.formatters import HtmlFormatter

    light, dark = (
        HtmlFormatter(style=style).get_style_defs(".highlight")
        for style in ("default", "github-dark")
    )
    return f"{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}"


def maths_to_mathml(markdown: str) -> str:
    """Replace ``$…$`` and ``$$…$$`` by MathML."""
    from latex2mathml.converter import convert

    def replace(match: re.Match[str]) -> str:
        code, display, inline = match.groups()
        if display:  # on a narrow screen, equations that stand side by side go below each other
            equations = [convert(each, display="block") for each in display.split(r"\qquad")]
            # They may still scroll, and so have to be within reach of the keyboard.
            group = '<div class="equations" role="group" aria-label="Equation" tabindex="0">'
            return f"{group}{''.join(equations)}</div>"
        return code or convert(inline, display="inline")

    return MATHS.sub(replace, markdown)
