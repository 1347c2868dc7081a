"""Execution of the notebooks in ``workflow/notebooks`` and their rendering as pages.

Notebooks are executed here rather than by Snakemake's ``notebook:`` so that nothing of the machine
or of the moment gets into the copy: no absolute path, no time. Pages need no network: formulas are
turned into MathML, which browsers draw themselves, and pictures are embedded.
"""

import builtins
import html
import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from transcoders.errors import UserError
from transcoders.files import made_path

if TYPE_CHECKING:
    from nbclient.exceptions import CellExecutionError

SOURCES = Path("workflow/notebooks")
TIMEOUT_SECONDS = 600
MATHS = re.compile(
    r"(```.*?```|`[^`\n]+`)"  # code is left alone
    r"|\$\$(.+?)\$\$"
    r"|(?<!\\)\$(?!\s)([^$\n]+?)(?<![\s\\])\$(?!\d)",  # and so are prices
    re.DOTALL,
)

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{style}
</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""


def run_notebook(name: str, scale: str, destination: Path) -> None:
    """Execute a notebook and write ``destination`` (``.ipynb``) and the page beside it (``.html``).

    The cell tagged ``parameters`` is replaced by ``SCALE = "<scale>"``.

    Raises:
        UserError: there is no such notebook, or a cell fails; the message holds the cell's error.
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
    execute_notebook(notebook, str(source), destination)


def execute_notebook(notebook: Any, source: str, destination: Path) -> None:
    """Execute an nbformat notebook; write it and the page beside it.

    Raises:
        UserError: a cell fails, takes over ten minutes or ends its process; the message names
            ``source`` and holds the error.
    """
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
    from traitlets.config import Config

    with TemporaryDirectory(prefix="kernel-") as folder:
        # Over TCP two kernels that start at once may be given the same port, and one of them dies.
        sockets = {"transport": "ipc", "connection_file": f"{folder}/kernel.json"}
        client = NotebookClient(
            notebook,
            timeout=TIMEOUT_SECONDS,
            kernel_name="python3",
            record_timing=False,
            config=Config(KernelManager=sockets),
        )
        try:
            client.execute(cwd=str(Path.cwd()))
        except CellExecutionError as error:
            raise UserError(f"{source}: {_what_failed(error)}") from None
        except (CellTimeoutError, DeadKernelError) as error:
            raise UserError(f"{source}: a cell failed\n{error}") from None
    # Which patch release of Python ran it says nothing about the result.
    notebook.metadata.pop("language_info", None)
    page = render_page(notebook)
    with made_path(destination) as temporary:
        nbformat.write(notebook, temporary)
    with made_path(destination.with_suffix(".html")) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _what_failed(error: "CellExecutionError") -> str:
    """A sentence where a cell met what a user can put right; all that is known of other errors."""
    if error.ename == UserError.__name__:
        return str(error.evalue)
    if issubclass(getattr(builtins, error.ename, Exception), OSError):
        return f"{error.evalue}; see whether it may be read and written, and run again"
    return f"a cell failed\n{error}"


def render_page(notebook: Any) -> str:
    """An executed notebook as one self-contained HTML page without scripts."""
    import copy

    from nbconvert import HTMLExporter
    from pygments.formatters import HtmlFormatter

    rendered = copy.deepcopy(notebook)
    for cell in rendered.cells:
        if cell.cell_type == "markdown":
            cell.source = maths_to_mathml(cell.source)
    body, _ = HTMLExporter(template_name="basic").from_notebook_node(rendered)
    body = re.sub(r"<script.*?</script>", "", body, flags=re.DOTALL)
    style = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    highlight = HtmlFormatter(style="default").get_style_defs(".highlight")
    title = re.search(r"^# (.+)$", notebook.cells[0].source, re.MULTILINE)
    return PAGE.format(
        title=html.escape(title.group(1) if title else "Notebook"),
        style=f"{style}\n{highlight}",
        body=body.strip(),
    )


def maths_to_mathml(markdown: str) -> str:
    """Replace ``$…$`` and ``$$…$$`` by MathML."""
    from latex2mathml.converter import convert

    def replace(match: re.Match[str]) -> str:
        code, display, inline = match.groups()
        if code:
            return code
        return convert(display or inline, display="block" if display else "inline")

    return MATHS.sub(replace, markdown)
