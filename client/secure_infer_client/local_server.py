"""A server of this machine's own, as a separate process on loopback: for the demo and the benchmarks."""

from __future__ import annotations

import json
import subprocess
import sys
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
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        line = self.process.stdout.readline() if self.process.stdout else ""
        if not line:
            reason = self.process.communicate(timeout=10)[1].strip().splitlines()
            raise ServerUnavailable(f"the local server did not start: {reason[-1] if reason else 'it said nothing'}")
        self.ready: dict[str, Any] = json.loads(line)
        self.address = str(self.ready["address"])
        self.models = [str(name) for name in self.ready["models"]]

    def stop(self) -> None:
        """End the process in order, or at once when it does not comply."""
        self.process.terminate()
        try:
            self.process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()

    def __enter__(self) -> LocalServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
