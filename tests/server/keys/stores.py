"""What the tests of key stores share: a clock that is told, a Redis server of their own, keys as bytes."""

from __future__ import annotations

import hashlib
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest

from secure_infer_server.keys.names import KeyName
from shared import until

PLAN = hashlib.sha256(b"plan").digest()


class Clock:
    """Seconds that pass when told, and a little with every look: no two uses are at once."""

    def __init__(self) -> None:
        self.now = 1e9

    def __call__(self) -> float:
        self.now += 1e-3
        return self.now


def name_of(owner: str, data: bytes, plan: bytes = PLAN) -> KeyName:
    return KeyName(owner, plan, hashlib.sha256(data).digest())


def fine(data: bytes) -> None:
    """A check that lets everything pass."""


class RedisServer:
    """A real server on a socket in a directory of its own; nothing is written to disk."""

    def __init__(self, *options: str) -> None:
        program = shutil.which("redis-server")
        if program is None:
            pytest.skip("redis-server is not installed")
        pytest.importorskip("redis", reason="the package redis is not installed")
        self._program, self._options = program, options
        self._directory = tempfile.TemporaryDirectory(prefix="redis-", dir="/tmp")  # short: socket paths are
        self.socket = Path(self._directory.name) / "s"
        self.url = f"unix://{self.socket}"
        self.start()

    def start(self) -> None:
        command = [self._program, "--port", "0", "--unixsocket", str(self.socket), "--save", "", "--appendonly", "no"]
        directory = ["--dir", self._directory.name]
        self._process = subprocess.Popen(
            [*command, *directory, *self._options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until(self._listens)

    def _listens(self) -> bool:
        """Its socket is there a moment before it is listened at."""
        assert self._process.poll() is None, "redis-server ended"
        with socket.socket(socket.AF_UNIX) as caller:
            return caller.connect_ex(str(self.socket)) == 0

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self.socket.unlink(missing_ok=True)

    def pause(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        self.kill()
        self._directory.cleanup()
