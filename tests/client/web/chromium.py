"""A headless Chromium, driven by the DevTools protocol over its pipe: file descriptors 3 and 4, JSON ended by a zero byte."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections import deque
from pathlib import Path
from typing import Any

FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--remote-debugging-pipe",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--hide-scrollbars",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--mute-audio",
]
KEYS = {"Tab": 9, "Enter": 13, "Escape": 27, "ArrowRight": 39, " ": 32}


def installed() -> str | None:
    """The browser, where there is one."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Page:
    """One tab. events: all that the browser told of it, in order, until `clear`."""

    def __init__(self, profile: Path) -> None:
        binary = installed()
        assert binary is not None
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        # Bash puts the pipe's ends where the browser looks for them.
        script = f'exec 3<&{theirs_in} 4>&{theirs_out}; exec "$@"'
        command = ["bash", "-c", script, "bash", binary, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        self.process = subprocess.Popen(
            command,
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": str(profile)},
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._data = b""
        self._next = 0
        self._session: str | None = None
        self.events: deque[dict[str, Any]] = deque()
        target = self._wait_for_target()
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    # The protocol.

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command's result; what else arrives meanwhile is an event."""
        self._next += 1
        message: dict[str, Any] = {"id": self._next, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            found = self._read(60)
            if found.get("id") == self._next:
                assert "error" not in found, found["error"]
                return dict(found["result"])
            if "method" in found:
                self.events.append(found)

    def _wait_for_target(self) -> str:
        for _ in range(100):
            pages = [t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page"]
            if pages:
                return str(pages[0]["targetId"])
            time.sleep(0.1)
        raise TimeoutError("chromium opened no page")

    def _read(self, seconds: float) -> dict[str, Any]:
        ends = time.monotonic() + seconds
        while b"\0" not in self._data:
            left = ends - time.monotonic()
            if left <= 0 or not select.select([self._in], [], [], left)[0]:
                raise TimeoutError(f"chromium said nothing for {seconds} s")
            data = os.read(self._in, 1 << 20)
            if not data:
                raise ConnectionError("chromium ended")
            self._data += data
        message, _, self._data = self._data.partition(b"\0")
        return dict(json.loads(message))

    # What a user does, and sees.

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete'")

    def js(self, expression: str) -> Any:
        """The value of an expression in the page, awaited."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, condition: str, seconds: float = 60) -> None:
        ends = time.monotonic() + seconds
        while not self.js(condition):
            assert time.monotonic() < ends, f"never true: {condition}"
            time.sleep(0.05)

    def type(self, text: str) -> None:
        """Into what has the focus."""
        self.call("Input.insertText", text=text)

    def press(self, key: str, *, ctrl: bool = False) -> None:
        text = {"Enter": "\r", " ": " "}.get(key)
        common = {
            "key": key,
            "code": "Space" if key == " " else key,
            "windowsVirtualKeyCode": KEYS[key],
            "modifiers": 2 * ctrl,
        }
        self.call("Input.dispatchKeyEvent", type="keyDown", **common, **({"text": text} if text and not ctrl else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def media(self, **features: str) -> None:
        """prefers_color_scheme="dark", say."""
        listed = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.call("Emulation.setEmulatedMedia", features=listed)

    def size(self, width: int, height: int, scale: float = 1) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=width < 600,
        )

    def picture(self, path: Path, *, whole: bool = False) -> None:
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))

    def told(self, method: str) -> list[dict[str, Any]]:
        """The parameters of all events of that name so far."""
        return [event["params"] for event in self.events if event["method"] == method]

    def close(self) -> None:
        try:
            self._session = None
            self.call("Browser.close")
            self.process.wait(10)
        except (OSError, TimeoutError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()
        os.close(self._in)
        os.close(self._out)
