"""Other people's programs that tests run: viewers of circuits, and what checks our files.

They live in a folder of their own, made on first use, since this project does not need them.
"""

import functools
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from helpers_serving import serving

FOLDER = Path(__file__).resolve().parents[1] / ".venv-viewers"
WHEELS = ["circuit-tracer==0.5.0", "neuronpedia==1.2.1", "python-dotenv==1.2.1"]
LIBRARIES = {
    "d3-collection@1.0.7": "dist/d3-collection.min.js",  # the jetpack takes it for a part of d3
    "d3@7.9.0": "dist/d3.min.js",
    "d3-jetpack@2.3.0": "build/d3-jetpack.cjs",
    "dagre@0.8.5": "dist/dagre.min.js",
    "pako@2.1.0": "dist/pako.min.js",
}
"""What circuit-tracer's page loads from other sites: packages of npm, and the file of each."""
AXE = "axe-core@4.14.1"
"""Finds what keeps people out of a page: contrast, names of controls, order of headings."""
JETPACK = """{
const module = {}, exports = d3, require = () => d3;
SCRIPT
const conventions = d3.conventions;
d3.conventions = (given) => {
    const c = conventions(given);
    c.drawAxis = (svg = c.svg) => d3.drawAxis({...c, svg});
    return c;
};
}
"""
"""The published jetpack is a module, here made to add to d3 where it stands. The page loads a
build in which conventions can also draw axes."""
TAG = re.compile(r"<script src='https?:[^']*'></script>\n")
NEEDS_NPM = pytest.mark.skipif(
    not (shutil.which("npm") and shutil.which("node")),
    reason="needs Debian's nodejs and npm: run `make system-deps`",
)


def python_packages():
    """A folder with the wheels alone; what they import beside each other is in our environment."""
    folder = FOLDER / "python"
    if not (folder / ".installed").exists():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade"]
        subprocess.run([*pip, "--target", folder, *WHEELS], check=True)
        (folder / ".installed").touch()
    return folder


def npm_packages(name="npm", packages=LIBRARIES):
    """A folder with packages of npm; the test is skipped where npm cannot reach its registry.

    Args:
        name: of the folder.
        packages: each with its version.
    """
    folder = FOLDER / name
    if not (folder / ".installed").exists():
        folder.mkdir(parents=True, exist_ok=True)
        npm = ["npm", "install", "--prefix", folder, "--ignore-scripts", "--no-save", "--no-audit"]
        done = subprocess.run([*npm, *packages], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"npm could not install {', '.join(packages)}: {done.stderr.strip()}")
        (folder / ".installed").touch()
    return folder / "node_modules"


def make_frontend(folder):
    """circuit-tracer's page, with its libraries from beside it in place of other sites."""
    shutil.copytree(python_packages() / "circuit_tracer/frontend/assets", folder)
    tags = []
    for package, file in LIBRARIES.items():
        name = package.partition("@")[0]
        script = (npm_packages() / name / file).read_text()
        if name == "d3-jetpack":
            script = JETPACK.replace("SCRIPT", script)
        (folder / f"{name}.js").write_text(script)
        tags.append(f"<script src='./{name}.js'></script>\n")
    (folder / "favicon.ico").touch()  # a browser asks for it
    page = folder / "index.html"
    text = TAG.sub(lambda _: "".join(tags), page.read_text(), count=1)
    page.write_text(TAG.sub("", text))
    return folder


@contextmanager
def served(data, frontend):
    """The address where circuit-tracer's own server shows the graphs of a folder."""
    from circuit_tracer.frontend.local_server import CircuitGraphHandler

    handler = functools.partial(CircuitGraphHandler, frontend_dir=frontend, data_dir=data)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, serving(server) as port:
        yield f"http://127.0.0.1:{port}/index.html"


def show(browser, url):
    """Open the viewer, and wait until it has drawn something."""
    browser.open("about:blank", width=1500, height=1000)
    browser.events.clear()
    browser.command("Page.navigate", url=url)  # the page rewrites its address at once
    browser.wait(lambda: browser.run(f"{DRAWN}.length > 0"))


def drawn(browser):
    """The nodes that the viewer shows, and where each is, in CSS pixels."""
    return browser.run(f"{DRAWN}.map({NODE})")


NODE = """(each) => {
    const box = each.getBoundingClientRect();
    const x = box.x + box.width / 2, y = box.y + box.height / 2;
    return { id: each.__data__.node_id, name: each.__data__.ppClerp, x, y };
}"""
DRAWN = "[...document.querySelectorAll('.link-graph text.node')]"


def click(browser, x, y):
    """Press and release the mouse's button."""
    at = {"x": x, "y": y, "button": "left", "clickCount": 1}
    browser.command("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    for kind in ("mousePressed", "mouseReleased"):
        browser.command("Input.dispatchMouseEvent", type=kind, **at)


def complaints(browser):
    """What the page wrote to the console, without plain remarks."""
    bad = ("error", "warning", "assert")
    return [each for each in browser.said() if each["params"].get("type", "error") in bad]
