"""A real Chromium, driven over its DevTools protocol: typing, looking, and everything that it asks for or complains of."""

from __future__ import annotations

import base64
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from websockets.sync.client import ClientConnection, connect

from tests.needs import need

SECONDS = 60.0  # for the slowest step on a busy machine
_FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-default-apps", "--disable-dev-shm-usage", "--remote-debugging-port=0",
)  # fmt: skip
_KEYS = {"Tab": 9, "Enter": 13, "Backspace": 8}


class Tab:
    """One page of the browser.

    Attributes
    ----------
    asked
        Every address that it asked for, over the network or not.
    complaints
        What it wrote to its console: errors, warnings, exceptions, refused and failed loads.
    """

    def __init__(self, socket: ClientConnection) -> None:
        self._socket, self._number = socket, 0
        self.asked: list[str] = []
        self.complaints: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.do(f"{domain}.enable")

    def do(self, method: str, **params: Any) -> Any:
        """Send one command and return its result."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(timeout=SECONDS))
            if message.get("id") == self._number:
                assert "error" not in message, message["error"]
                return message["result"]
            self._heard(message)

    def say(self, script: str) -> Any:
        """Return the value of an expression in the page."""
        return self.do("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def open(self, address: str) -> None:
        """Go to an address and wait until it is there."""
        self.do("Page.navigate", url=address)
        self.until(lambda: self.say("document.readyState") == "complete" and self.say("location.href") != "about:blank")

    def until(self, condition: Callable[[], Any]) -> None:
        """Wait until a condition holds."""
        end = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < end, f"it did not come true in time, on {self.say('document.body.innerText')}"
            time.sleep(0.05)

    def shows(self, text: str) -> bool:
        """Whether a person can read a text on the page."""
        return text in (self.say("document.readyState == 'complete' ? document.body.innerText : ''") or "")

    def press(self, key: str, *, times: int = 1, shift: bool = False) -> None:
        """Press a key."""
        text = "\r" if key == "Enter" else ""
        facts = {"key": key, "code": key, "windowsVirtualKeyCode": _KEYS[key], "modifiers": 8 if shift else 0}
        for _ in range(times):
            self.do("Input.dispatchKeyEvent", type="keyDown", text=text, **facts)
            self.do("Input.dispatchKeyEvent", type="keyUp", **facts)

    def write(self, text: str) -> None:
        """Type into the field that has the focus, over what is selected there."""
        self.do("Input.insertText", text=text)

    @property
    def focus(self) -> str:
        """The name or the text of what has the focus."""
        return self.say("document.activeElement.name || document.activeElement.innerText") or ""

    def tab_to(self, name: str) -> None:
        """Move the focus by the Tab key, as somebody without a mouse does."""
        for _ in range(60):
            if self.focus == name:
                return
            self.press("Tab")
        raise AssertionError(f"the Tab key does not lead to {name!r}; it is at {self.focus!r}")

    def size(self, width: int, height: int, *, dark: bool = False) -> None:
        """Be a screen of a size, light or dark."""
        self.do(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.do("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self, file: Path) -> None:
        """Save what the whole page looks like."""
        made = self.do("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(made["data"]))

    def _heard(self, message: dict[str, Any]) -> None:
        kind, said = message.get("method"), message.get("params", {})
        if kind == "Network.requestWillBeSent":
            self.asked.append(said["request"]["url"])
        elif kind == "Log.entryAdded":
            self.complaints.append(f"{said['entry']['level']}: {said['entry']['text']} {said['entry'].get('url', '')}")
        elif kind in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled"):
            self.complaints.append(json.dumps(said)[:500])


@contextmanager
def browser(folder: Path) -> Iterator[Tab]:
    """Start Chromium with a profile of its own and give its first page; end it afterwards."""
    command = [str(need("chromium")), *_FLAGS, f"--user-data-dir={folder / 'profile'}", "about:blank"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        port = _port(folder / "profile" / "DevToolsActivePort")
        pages = json.loads(urlopen(f"http://127.0.0.1:{port}/json/list", timeout=SECONDS).read())
        address = next(page["webSocketDebuggerUrl"] for page in pages if page["type"] == "page")
        with connect(address, max_size=None, proxy=None) as socket:
            yield Tab(socket)
    finally:
        process.terminate()
        process.wait(timeout=30)


def _port(file: Path) -> int:
    end = time.monotonic() + SECONDS
    while not (file.is_file() and "\n" in file.read_text()):
        assert time.monotonic() < end, "Chromium did not start"
        time.sleep(0.05)
    return int(file.read_text().split("\n")[0])
