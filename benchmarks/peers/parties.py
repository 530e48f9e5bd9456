"""The client's side of secret sharing between processes on loopback: starts them, and sends each its part of a query.

Needs the standard library alone, and Python 3.10: it runs in each peer's environment.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from types import TracebackType

from peers.wire import receive, send

START_SECONDS = 60.0
ANSWER_SECONDS = 60.0


class Failed(Exception):
    """A process did not start, or an answer did not come in time."""


class Parties:
    """The processes, and the client's connections to those that compute.

    command: what follows the interpreter, by rank, the client's port, and a folder that they share. Ranks below `answering`
    connect to that port and name their rank in a first frame; others serve those. settings: environment, by rank and folder.
    """

    def __init__(
        self,
        count: int,
        answering: int,
        command: Callable[[int, int, Path], Sequence[object]],
        settings: Callable[[int, Path], Mapping[str, str]] = lambda rank, folder: {},
    ) -> None:
        self._folder = tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        self._log = folder / "log"
        self._links: list[socket.socket] = []
        self._processes: list[subprocess.Popen[bytes]] = []
        with socket.create_server(("127.0.0.1", 0)) as listener, self._log.open("wb") as log:
            port = int(listener.getsockname()[1])
            try:
                for rank in range(count):
                    self._processes.append(
                        subprocess.Popen(
                            [sys.executable, *map(str, command(rank, port, folder))],
                            env=os.environ | settings(rank, folder),
                            stdin=subprocess.PIPE,
                            stdout=log,
                            stderr=log,
                            start_new_session=True,
                        )
                    )
                self._links = self._accepted(listener, answering)
            except BaseException:
                self.close()
                raise

    def _accepted(self, listener: socket.socket, answering: int) -> list[socket.socket]:
        listener.settimeout(1.0)
        links: dict[int, socket.socket] = {}
        started = perf_counter()
        while len(links) < answering:
            try:
                link, _ = listener.accept()
            except TimeoutError:
                ended = [process.returncode for process in self._processes if process.poll() is not None]
                if ended or perf_counter() - started > START_SECONDS:
                    raise Failed(f"the parties did not start: {self.last_line()}") from None
                continue
            link.settimeout(ANSWER_SECONDS)
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            links[int(receive(link)[1])] = link
        return [links[rank] for rank in sorted(links)]

    def ask(self, kind: bytes, bodies: Sequence[bytes]) -> list[bytearray]:
        """One frame to each party, and their answers' bodies; raises Failed when one does not come."""
        try:
            for link, body in zip(self._links, bodies, strict=True):
                send(link, kind, body)
            return [receive(link)[1] for link in self._links]
        except (OSError, EOFError) as error:
            raise Failed(f"{error}: {self.last_line()}") from error

    def told(self) -> str:
        """All that the processes have printed."""
        return self._log.read_text(errors="replace")

    def last_line(self) -> str:
        """The last of it, cut to fit a message."""
        return (self.told().strip().splitlines() or ["the parties said nothing"])[-1][:150]

    def close(self) -> None:
        """End all processes at once: a library's own way to end may hang."""
        for link in self._links:
            link.close()
        for process in self._processes:
            with suppress(ProcessLookupError):  # it has ended already
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if process.stdin:
                process.stdin.close()
        self._folder.cleanup()

    def __enter__(self) -> Parties:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
