"""A real browser, told what to do through a pair of pipes: Chromium's own debugging protocol."""

import fcntl
import itertools
import json
import os
import shutil
import subprocess
import time
from contextlib import contextmanager
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
NEEDS_CHROMIUM = pytest.mark.skipif(
    CHROMIUM is None, reason="needs Debian's chromium: run `make system-deps`"
)
QUIET = [
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--remote-debugging-pipe", "--hide-scrollbars",
]  # fmt: skip
"""No window, no calls to anyone, and commands through pipes."""
COMPLAINTS = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
PATIENCE_SECONDS = 30


class Browser:
    """One tab. Commands are answered in order; events are kept."""

    def __init__(self, folder):
        """Start with an empty page.

        Args:
            folder: for the browser's profile.
        """
        their_input, self._output = os.pipe()
        self._input, their_output = os.pipe()
        # Chromium reads descriptor 3 and writes 4; above 9, neither is in the other's way.
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (their_input, their_output)]
        command = ["bash", "-c", f'exec "$@" 3<&{ends[0]} 4>&{ends[1]}', "bash"]
        self._process = subprocess.Popen(
            [*command, CHROMIUM, *QUIET, f"--user-data-dir={folder / 'profile'}", "about:blank"],
            pass_fds=ends,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"XDG_CONFIG_HOME": str(folder), "XDG_CACHE_HOME": str(folder)},
        )
        for end in (their_input, their_output, *ends):
            os.close(end)
        self._numbers = itertools.count(1)
        self._buffer = b""
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        targets = self.command("Target.getTargets")["targetInfos"]
        tab = next(target["targetId"] for target in targets if target["type"] == "page")
        attached = self.command("Target.attachToTarget", targetId=tab, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.command(f"{domain}.enable")

    def close(self):
        """End the browser."""
        self._process.terminate()
        self._process.wait(PATIENCE_SECONDS)
        os.close(self._input)
        os.close(self._output)

    def command(self, method, **parameters):
        """What the browser answers."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._output, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == number:
                assert "error" not in answer, answer["error"]
                return answer["result"]
            self.events.append(answer)

    def _read(self):
        while b"\0" not in self._buffer:
            part = os.read(self._input, 1 << 16)
            assert part, "the browser ended"
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def run(self, script):
        """The value of some JavaScript on the page."""
        answer = self.command("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, until):
        """Ask again until it is so."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                if until():
                    return
            except AssertionError:  # The page is just being left.
                pass
            assert time.monotonic() < deadline, "the page did not get there"
            time.sleep(0.02)

    def open(self, url, *, width, height=900):
        """Load a page at some width, in CSS pixels."""
        self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip
        self.command("Page.navigate", url=url)
        self.wait(lambda: self.run(f"location.href === {json.dumps(url)} && {LOADED}"))

    def said(self):
        """Whatever pages wrote to the console, the browser's own refusals included."""
        self.run("1")  # what came before is here by now
        return [
            event
            for event in self.events
            if event["method"] in COMPLAINTS
            # Browsers ask for an icon whether there is one or not.
            and not event["params"].get("entry", {}).get("url", "").endswith("/favicon.ico")
        ]

    @contextmanager
    def without_scripts(self):
        """Pages cannot run their scripts within the block."""
        self.command("Emulation.setScriptExecutionDisabled", value=True)
        try:
            yield
        finally:
            self.command("Emulation.setScriptExecutionDisabled", value=False)

    def press(self, key, *, held=False):
        """Press a key that writes a character, or an arrow."""
        text: dict[str, Any] = {"text": key} if len(key) == 1 else {}
        if key == "Escape":  # the browser itself knows keys by their number
            text["windowsVirtualKeyCode"] = 27
        self.command("Input.dispatchKeyEvent", type="keyDown", key=key, autoRepeat=held, **text)
        self.command("Input.dispatchKeyEvent", type="keyUp", key=key)


LOADED = "document.readyState === 'complete'"


class Reader:
    """Someone who uses a page."""

    def __init__(self, browser, page):
        self.browser, self.page = browser, page

    def open(self, hash_="", *, width=1200):
        """Load the page anew, which another hash alone would not."""
        self.browser.command("Page.navigate", url="about:blank")
        self.browser.events.clear()
        self.browser.open(self.page.as_uri() + hash_, width=width)

    def run(self, script):
        return self.browser.run(script)
