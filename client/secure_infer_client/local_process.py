"""A command of this project as a process of its own on loopback: for the demo, the benchmarks and tests."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from secure_infer.errors import ServerUnavailable


class LocalProcess:
    """`secure-infer COMMAND OPTIONS` until `stop`; `ready` is the line it printed when it was, `address` where it listens."""

    def __init__(self, name: str, *command: str) -> None:
        # A file: a pipe that nobody reads would block the process in the end.
        self._log = tempfile.NamedTemporaryFile("w+")  # noqa: SIM115 (it lives as long as this object)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "secure_infer.cli", *command], stdout=subprocess.PIPE, stderr=self._log, text=True
        )
        line = self.process.stdout.readline() if self.process.stdout else ""
        if not line:
            self.process.wait(timeout=10)
            reason = self.log().strip().splitlines()[-1:] or ["it said nothing"]
            raise ServerUnavailable(f"{name} did not start: {reason[0]}")
        self.ready: dict[str, Any] = json.loads(line)
        self.address = str(self.ready["address"])

    def log(self) -> str:
        """What the process wrote to stderr so far."""
        return Path(self._log.name).read_text()

    def stop(self) -> None:
        """End the process in order, or at once when it does not comply."""
        self.process.terminate()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
