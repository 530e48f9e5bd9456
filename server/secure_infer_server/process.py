"""What every process that serves has in common: the port it binds, and how it ends."""

from __future__ import annotations

import signal
import threading
from typing import Any

from secure_infer.errors import SettingsError


def taken(address: str) -> str:
    """The words for an address that cannot be had."""
    return f"cannot listen on {address}: the port is in use, or the address is not this machine's"


def bound(server: Any, host: str, port: int, credentials: Any) -> str:
    """Bind a gRPC server (grpc or grpc.aio), without TLS when credentials are None; returns "HOST:PORT".

    port 0 picks a free one. Raises SettingsError when the address cannot be had.
    """
    wanted = f"{host}:{port}"
    try:
        if credentials is None:
            found = server.add_insecure_port(wanted)
        else:
            found = server.add_secure_port(wanted, credentials)
    except RuntimeError:
        found = 0
    if not found:
        raise SettingsError(taken(wanted))
    return f"{host}:{found}"


class Ending:
    """The end that a signal asks for."""

    def __init__(self) -> None:
        self._asked = threading.Event()

    def heed_signals(self) -> None:
        """From now on, SIGTERM or SIGINT ends `wait`; a second one ends the process at once. For the main thread."""

        def end(*_: object) -> None:
            if self._asked.is_set():
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                signal.raise_signal(signal.SIGTERM)
            self._asked.set()

        signal.signal(signal.SIGTERM, end)
        signal.signal(signal.SIGINT, end)

    def wait(self) -> None:
        """Until a signal."""
        while not self._asked.wait(3600):
            pass
