"""A real browser, driven over its debugging protocol: what a page logs, what it asks the network for, how it lies."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync import client

from tests.services import skip_or_fail

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PORT_FILE = "DevToolsActivePort"
WAIT_S = 20.0


class Page:
    """One open tab, and every event that it sent so far."""

    def __init__(self, socket: Any) -> None:
        self.socket = socket
        self.n_sent = 0
        self.events: list[dict[str, Any]] = []

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        self.n_sent += 1
        self.socket.send(json.dumps({"id": self.n_sent, "method": method, "params": params}))
        while True:
            message = json.loads(self.socket.recv(timeout=WAIT_S))
            if message.get("id") == self.n_sent:
                assert "error" not in message, message["error"]
                return message["result"]
            self.events.append(message)

    def open(self, path: Path, *, width: int = 1280, scheme: str = "light") -> None:
        """Load a file and wait until everything it asks for has come or failed."""
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.events.clear()
        self.send("Page.navigate", url=path.resolve().as_uri())
        deadline = time.monotonic() + WAIT_S
        while not self.told("Page.loadEventFired"):
            assert time.monotonic() < deadline, "the page never finished loading"
            self.evaluate("1")
        self.evaluate("new Promise(done => setTimeout(done, 100))")

    def told(self, method: str) -> list[dict[str, Any]]:
        return [event["params"] for event in self.events if event.get("method") == method]

    def evaluate(self, script: str) -> Any:
        result = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        return result["result"].get("value")

    def complaints(self) -> list[str]:
        """Console errors and warnings, uncaught exceptions, and what the browser itself logged (such as blocks)."""
        logged = [entry["entry"]["text"] for entry in self.told("Log.entryAdded")]
        said = [str(call["args"]) for call in self.told("Runtime.consoleAPICalled") if call["type"] != "log"]
        return logged + said + [str(thrown) for thrown in self.told("Runtime.exceptionThrown")]

    def requests(self) -> list[str]:
        """Every address that the page asked for, itself included."""
        return [sent["request"]["url"] for sent in self.told("Network.requestWillBeSent")]

    def screenshot(self, path: Path) -> None:
        shot = self.send("Page.captureScreenshot", captureBeyondViewport=True, format="png")
        path.write_bytes(base64.b64decode(shot["data"]))


@contextmanager
def browser_page(profile: Path) -> Iterator[Page]:
    """Start a headless browser with an empty profile and give its tab; skips the test where none is installed."""
    if CHROMIUM is None:
        skip_or_fail("no chromium is installed: apt-get install chromium")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
             "--hide-scrollbars", "--remote-debugging-port=0", f"--user-data-dir={profile}"]  # fmt: skip
    process = subprocess.Popen([CHROMIUM, *flags, "about:blank"], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        with client.connect(_tab_address(profile), max_size=None) as socket:
            yield Page(socket)
    finally:
        process.terminate()
        process.wait(timeout=WAIT_S)


def _tab_address(profile: Path) -> str:
    """The debugging address of the first tab, once the browser has written its port."""
    import urllib.request

    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        lines = (profile / PORT_FILE).read_text().split() if (profile / PORT_FILE).is_file() else []
        if lines:
            with urllib.request.urlopen(f"http://127.0.0.1:{lines[0]}/json/list") as reply:
                tabs = [tab for tab in json.load(reply) if tab["type"] == "page"]
            if tabs:
                return str(tabs[0]["webSocketDebuggerUrl"])
        time.sleep(0.05)
    raise AssertionError("the browser did not open its debugging port")
