"""A server of this machine's own, as a separate process on loopback: for the demo and the benchmarks."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

from secure_infer.errors import ServerUnavailable


class LocalServer:
    """`secure-infer serve` in a process of its own; `address` is where it listens.

    options: further command-line options of `serve`.
    """

    def __init__(self, models: Path, *options: str) -> None:
        command = [sys.executable, "-m", "secure_infer.cli", "serve", "--models", str(models)]
        command += [*(() if "--listen" in options else ("--listen", "127.0.0.1:0")), "--insecure", *options]
        # A file: a pipe that nobody reads would block the server in the end.
        self._log = tempfile.NamedTemporaryFile("w+")  # noqa: SIM115 (it lives as long as this object)
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self._log, text=True)
        line = self.process.stdout.readline() if self.process.stdout else ""
        if not line:
            self.process.wait(timeout=10)
            reason = self.log().strip().splitlines()[-1:] or ["it said nothing"]
            raise ServerUnavailable(f"the local server did not start: {reason[0]}")
        self.ready: dict[str, Any] = json.loads(line)
        self.address = str(self.ready["address"])
        self.models = [str(name) for name in self.ready["models"]]

    def log(self) -> str:
        """What the server wrote to stderr so far."""
        return Path(self._log.name).read_text()

    def stop(self) -> None:
        """End the process in order, or at once when it does not comply."""
        self.process.terminate()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def __enter__(self) -> LocalServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
