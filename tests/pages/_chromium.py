"""A headless Chromium, driven through its DevTools protocol over a pipe: no package, no port."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_SECONDS = 60
# becomes the program of its third argument; copies first, for the pipes may be 3 and 4 already, the other way round
_WITH_PIPES = """
import os, sys
read, write = (os.dup(os.dup(os.dup(int(number)))) for number in sys.argv[1:3])
os.dup2(read, 3)
os.dup2(write, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


def find_chromium() -> str | None:
    """Return where a Chromium is installed."""
    return next((path for path in map(shutil.which, NAMES) if path is not None), None)


class Chromium:
    """One page in a browser of its own; what it logs and asks for is kept in ``events``."""

    def __init__(self, program: str) -> None:
        self._profile = tempfile.mkdtemp(prefix="chromium-")
        to_browser, self._out = os.pipe()
        self._in, from_browser = os.pipe()
        flags = [
            "--headless=new", "--remote-debugging-pipe", f"--user-data-dir={self._profile}", "--no-first-run",
            "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
            "--disable-component-update", "--hide-scrollbars", "about:blank",
        ]  # fmt: skip
        # the protocol's pipes are the browser's descriptors 3 and 4
        self._process = subprocess.Popen(
            [sys.executable, "-c", _WITH_PIPES, str(to_browser), str(from_browser), program, *flags],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._buffer = b""
        self._number = 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        target = next(t for t in self.send("Target.getTargets")["targetInfos"] if t["type"] == "page")
        attached = self.send("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.send(f"{domain}.enable")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError, EOFError, TimeoutError):
            self._session = None
            self.send("Browser.close")
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._in)
        os.close(self._out)
        shutil.rmtree(self._profile, ignore_errors=True)

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while (reply := self._receive()).get("id") != self._number:
            self.events.append(reply)
        assert "error" not in reply, (method, reply["error"])
        return reply["result"]  # type: ignore[no-any-return]

    def open(self, page: Path, *, width: int, height: int = 900, dark: bool = False, phone: bool = False) -> None:
        """Show a file in a window of this width, and wait until it is drawn."""
        self.events.clear()
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])
        self.send("Page.navigate", url=page.resolve().as_uri())
        until = time.monotonic() + _SECONDS
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            assert time.monotonic() < until, "the page did not load"
            self.send("Runtime.evaluate", expression="1")

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression; the page's policy does not hold for the debugger."""
        result = self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def names_of(self, role: str) -> list[str]:
        """Return what a screen reader calls the page's elements of this role."""
        nodes = self.send("Accessibility.getFullAXTree")["nodes"]
        return [node["name"]["value"] for node in nodes if not node["ignored"] and node["role"]["value"] == role]

    def screenshot(self, *, whole: bool = True) -> bytes:
        """Return a PNG of the page."""
        shot = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        return base64.b64decode(shot["data"])

    def complaints(self) -> list[str]:
        """Return what the page logged: errors, warnings, breaches of its policy."""
        logged = ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")
        return [json.dumps(event["params"]) for event in self.events if event.get("method") in logged]

    def requested(self) -> list[str]:
        """Return the addresses of everything the page asked for, itself included; what is in it as ``data:`` is not."""
        sent = [event["params"] for event in self.events if event.get("method") == "Network.requestWillBeSent"]
        addresses = [parameters["request"]["url"] for parameters in sent]
        return [address for address in addresses if not address.startswith("data:")]

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            readable, _, _ = select.select([self._in], [], [], _SECONDS)
            if not readable:
                raise TimeoutError("Chromium does not answer")
            block = os.read(self._in, 1 << 20)
            if not block:
                raise EOFError("Chromium has ended")
            self._buffer += block
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)  # type: ignore[no-any-return]
