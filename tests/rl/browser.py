"""A headless Chromium for tests, driven over its own protocol: real clicks and keys, real screenshots."""

import base64
import contextlib
import itertools
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_PATIENCE = 60.0


def chromium() -> str | None:
    """The program; None where there is none."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Page:
    """One tab."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._ids = itertools.count(1)
        self._send("Page.enable")

    def open(self, url: str) -> None:
        """Go somewhere, and wait until it is there."""
        self._send("Page.navigate", url=url)
        self.wait(f"document.readyState === 'complete' && location.href.startsWith({json.dumps(url.split('#')[0])})")

    def value(self, script: str) -> Any:
        """What an expression comes to."""
        answer = self._send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, script: str) -> None:
        """Wait until an expression is true; while a page is being left, there is nothing to ask."""
        began = time.monotonic()
        while True:
            with contextlib.suppress(AssertionError):
                if self.value(script):
                    return
            assert time.monotonic() - began < _PATIENCE, f"{script} did not come true"
            time.sleep(0.05)

    def click(self, selector: str) -> None:
        """Press and let go of the mouse's button over the middle of an element, once the page is whole."""
        self.wait("document.readyState === 'complete'")
        box = self.value(
            f"(() => {{const e = document.querySelector({json.dumps(selector)}); e.scrollIntoView({{block: 'center'}});"
            "const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]})()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self._send("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)

    def press(self, key: str) -> None:
        """Type one key, once the page is whole."""
        self.wait("document.readyState === 'complete'")
        for kind in ("keyDown", "keyUp"):
            text = {"text": key} if kind == "keyDown" and len(key) == 1 else {}
            self._send("Input.dispatchKeyEvent", type=kind, key=key, **text)

    def dark(self, wanted: bool) -> None:
        """Prefer dark colours, or light ones."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if wanted else "light"}
        self._send("Emulation.setEmulatedMedia", features=[scheme])

    def screenshot(self) -> bytes:
        """As PNG."""
        return base64.b64decode(self._send("Page.captureScreenshot", format="png")["data"])

    def _send(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._ids)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self._socket.recv(timeout=_PATIENCE))
            if answer.get("id") == number:
                assert "error" not in answer, answer["error"]
                return answer["result"]


@contextlib.contextmanager
def browser(program: str) -> Iterator[Page]:
    """A browser with one tab, gone at the end."""
    with tempfile.TemporaryDirectory() as profile:
        process = subprocess.Popen(
            [
                program,
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--window-size=1400,1000",
                "--remote-debugging-port=0",
                f"--user-data-dir={profile}",
                "about:blank",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            with connect(_tab(Path(profile), process), max_size=None, open_timeout=_PATIENCE) as socket:
                yield Page(socket)
        finally:
            process.terminate()
            process.wait(timeout=_PATIENCE)


def _tab(profile: Path, process: subprocess.Popen[bytes]) -> str:
    import httpx

    began = time.monotonic()
    noted = profile / "DevToolsActivePort"
    while not (noted.exists() and noted.read_text().count("\n")):
        assert process.poll() is None and time.monotonic() - began < _PATIENCE, "the browser did not start"
        time.sleep(0.05)
    port = noted.read_text().splitlines()[0]
    tabs = httpx.get(f"http://127.0.0.1:{port}/json", timeout=_PATIENCE).json()
    return next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
