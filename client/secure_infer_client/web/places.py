"""Where queries go: a server and parties of this machine's own, or what the command line names."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from secure_infer.errors import SecureInferError, SettingsError, UnknownModel
from secure_infer.heads import Head
from secure_infer_client.client import Client
from secure_infer_client.local_parties import LocalParties
from secure_infer_client.local_server import LocalServer
from secure_infer_client.schemes import SCHEMES
from secure_infer_client.web.connection import Connection, MakeClient, Plaintext

STARTING, READY, ABSENT = "starting", "ready", "absent"


class Place(Protocol):
    """models: those that take text, the first of them chosen at first. local: whether all of it runs on this machine."""

    models: Sequence[str]
    local: bool

    def start(self) -> None:
        """Connect, or begin to start what is to be connected to; raises what connecting raises."""

    def states(self) -> dict[str, tuple[str, str]]:
        """By scheme, how it is (STARTING, READY, ABSENT), and one sentence on it."""

    def open(self, scheme: str, model: str) -> Connection:
        """A connection of its own for this pair; made once. Waits for what is starting. Raises SettingsError."""

    def plaintext(self, model: str) -> Plaintext | None:
        """What the model costs in the clear, or None where that is not offered."""

    def close(self) -> None:
        """Ends what was started."""


class _Opened:
    """Connections by scheme and model, each made once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[tuple[str, str], Connection] = {}

    def get(self, scheme: str, model: str, make: Any) -> Connection:
        with self._lock:
            if (scheme, model) not in self._held:
                self._held[scheme, model] = make()
            return self._held[scheme, model]

    def close(self) -> None:
        with self._lock:
            for one in self._held.values():
                one.close()
            self._held.clear()


class Local:
    """A demonstration server with its plaintext baseline on, then a dealer and two parties; they start meanwhile.

    models: directory of heads. first: the one chosen at first.
    """

    local = True

    def __init__(self, models: Path, first: str | None) -> None:
        heads = {path.stem: Head.load(path) for path in sorted(models.glob("*.head"))}
        names = [name for name, head in heads.items() if head.embedder is not None]
        if not names:
            raise SettingsError(f"--models: {models} holds no head that takes text")
        if first is not None and first not in names:
            raise UnknownModel(f"--model: expected one of {', '.join(names)}, got {first!r}")
        plain_first = sorted(names, key=lambda name: (name != first, len(heads[name].layers)))
        self.models: Sequence[str] = plain_first
        self._directory, self._opened = models, _Opened()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="local")
        self._server: Future[LocalServer] = Future()
        self._parties: Future[LocalParties] = Future()

    def start(self) -> None:
        """One after the other: the server is what the page shows first."""
        self._server = self._worker.submit(LocalServer, self._directory, "--plaintext-baseline")
        self._worker.submit(self.open, "ckks", self.models[0])
        self._parties = self._worker.submit(LocalParties, self._directory)

    def states(self) -> dict[str, tuple[str, str]]:
        return {
            "ckks": _state(self._server, "one server on this machine"),
            "mpc": _state(self._parties, "two parties and a dealer on this machine"),
        }

    def open(self, scheme: str, model: str) -> Connection:
        if model not in self.models:
            raise UnknownModel(f"model: expected one of {', '.join(self.models)}")
        if scheme == "ckks":
            targets: Sequence[str] = (self._server.result().address,)
        else:
            targets = self._parties.result().addresses

        def make() -> Connection:
            return Connection(lambda at: Client(at, model=model, scheme=scheme), targets, scheme=scheme, recorded=True)

        return self._opened.get(scheme, model, make)

    def plaintext(self, model: str) -> Plaintext | None:
        try:
            return self.open("ckks", model).plaintext()
        except SecureInferError:  # the server is gone; what two parties answered stands
            return None

    def close(self) -> None:
        self._opened.close()
        self._worker.shutdown(wait=True, cancel_futures=True)
        for started in (self._parties, self._server):
            if started.done() and not started.cancelled() and started.exception() is None:
                started.result().stop()


class Named:
    """What `--target` and its fellows name: one model under one scheme.

    make: a client of given targets. recorded: whether what passes these can be read, see `Connection`.
    """

    local = False

    def __init__(self, scheme: str, model: str, targets: Sequence[str], make: MakeClient, *, recorded: bool) -> None:
        self.models: Sequence[str] = (model,)
        self._scheme, self._targets, self._make, self._recorded = scheme, tuple(targets), make, recorded
        self._opened = _Opened()

    def start(self) -> None:
        self.open(self._scheme, self.models[0])

    def states(self) -> dict[str, tuple[str, str]]:
        absent = "not connected; start `secure-infer web` without --target to see it on this machine"
        held = (READY, ", ".join(self._targets))
        return {scheme: held if scheme == self._scheme else (ABSENT, absent) for scheme in SCHEMES}

    def open(self, scheme: str, model: str) -> Connection:
        if scheme != self._scheme or model not in self.models:
            raise SettingsError(
                f"expected model {self.models[0]!r} under scheme {self._scheme!r}, which the page is for"
            )
        return self._opened.get(
            scheme, model, lambda: Connection(self._make, self._targets, scheme=scheme, recorded=self._recorded)
        )

    def plaintext(self, model: str) -> Plaintext | None:
        """Nobody's server but the page's own is asked in the clear, whatever it offers."""
        return None

    def close(self) -> None:
        self._opened.close()


def _state(started: Future[Any], what: str) -> tuple[str, str]:
    if not started.done():
        return STARTING, f"starting {what}"
    problem = started.exception()
    if problem is None:
        return READY, what
    return ABSENT, problem.message if isinstance(problem, SecureInferError) else type(problem).__name__
