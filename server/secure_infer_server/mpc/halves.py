"""Halves of requests: what a client sent this party, until the party that leads calls for it."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import IntEnum
from time import monotonic

import numpy as np

from secure_infer.errors import HalvesDiffer, MalformedRequest, PeerFailure, ResourceExhausted
from secure_infer.mpc.correlations import ID_BYTES
from secure_infer.mpc.ring import Words
from secure_infer_server.mpc.recent import Recent
from secure_infer_server.mpc.roles import ANONYMOUS

MAX_UNDER_WAY = 192
MAX_OF_A_CLIENT = 64
"""Of these, one client's: one that sends halves without their other halves leaves places to the others."""
_REMEMBERED = 1 << 14
_REMEMBERED_SECONDS = 120.0
"""Request ids that are remembered at most, in 2 MB, and for how long where no more come: twice what any request may take, so that
neither party takes one up again that the other still works on. Later it would be evaluated anew, on correlations and masks of
its own."""


@dataclass(frozen=True)
class Costs:
    """Seconds and counts of one request at this party."""

    wait: float
    link: float
    rounds: int
    link_bytes: int
    correlation_bytes: int


@dataclass(eq=False)
class Half:
    """One client's half of a request: share (rows, features), words. answer: this party's share, with what it took,
    at the party that follows; at both, the error that ends it when its caller has gone."""

    request_id: bytes
    client: str
    model: str
    model_digest: bytes
    program_digest: bytes
    share: Words
    deadline: float
    answer: Future[tuple[Words, Costs]] = field(default_factory=Future)

    def abandon(self) -> None:
        """Its caller has gone: whoever waits for the answer need not."""
        with suppress(InvalidStateError):
            self.answer.set_exception(PeerFailure("request: its caller gave it up"))

    @property
    def binding(self) -> dict[str, str | int]:
        """What both halves have in common."""
        return {
            "request": self.request_id.hex(),
            "client": self.client,
            "model": self.model,
            "model_digest": self.model_digest.hex(),
            "program": self.program_digest.hex(),
            "rows": len(self.share),
        }


@dataclass(frozen=True)
class Start:
    """How the leader opens a request: what its half is bound to, and the bundle. opens: whether weights are opened against
    the masks of the bundle's epoch first."""

    binding: dict[str, str | int]
    bundle: bytes
    opens: bool

    def pack(self) -> bytes:
        entry = {**self.binding, "bundle": self.bundle.hex(), "opens": self.opens}
        return json.dumps(entry, sort_keys=True).encode()

    @classmethod
    def unpack(cls, data: bytes) -> Start:
        """Raises MalformedRequest."""
        try:
            entry = json.loads(data)
            bundle, opens = bytes.fromhex(entry.pop("bundle")), entry.pop("opens")
            if (
                type(opens) is not bool
                or len(bundle) not in (0, ID_BYTES)
                or len(bytes.fromhex(entry["request"])) != 16
            ):
                raise ValueError("fields")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise MalformedRequest("start: expected JSON as `Start.pack` writes it") from None
        return cls(entry, bundle, opens)

    @property
    def request_id(self) -> bytes:
        return bytes.fromhex(str(self.binding["request"]))

    def require(self, half: Half) -> None:
        """Raise HalvesDiffer, naming what differs, unless the half belongs to it."""
        own = half.binding
        different = sorted(name for name in own.keys() | self.binding.keys() if own.get(name) != self.binding.get(name))
        if different:
            raise HalvesDiffer(
                f"request: the two halves differ in {', '.join(different).replace('_', ' ')}; send both from one client, "
                "for one model, and see that both parties serve the same files with the same options"
            )


class Whereabouts(IntEnum):
    """Of a half at the party that follows, as it answers one who asks."""

    UNKNOWN = 0
    HERE = 1
    GONE = 2


_ASK = b"?"


def ask(request_id: bytes) -> bytes:
    """How the leader opens a lane to ask for a half; a `Start` is JSON, and begins otherwise."""
    return _ASK + request_id


def asked(start: bytes) -> bytes | None:
    """The id that is asked for; None for a start of a request."""
    return start[len(_ASK) :] if start.startswith(_ASK) else None


class Halves:
    """Ids that were seen, and requests that are under way; at the party that follows, halves that wait to be claimed."""

    def __init__(self) -> None:
        self._waiting: dict[bytes, Half | None] = {}  # None: about to be offered
        self._seen = Recent(_REMEMBERED_SECONDS, _REMEMBERED)
        self._under_way: Counter[str] = Counter()  # by client
        self._changed = threading.Condition()

    @contextmanager
    def admitted(self, request_id: bytes, client: str = "") -> Iterator[None]:
        """A request's half is here, for as long as the block lasts.

        Raises MalformedRequest for an id that was used lately, since no request is evaluated twice, and ResourceExhausted
        when too many are under way.
        """
        with self._changed:
            if request_id in self._seen:
                raise MalformedRequest("request id: it was used before; every request takes a fresh one, retries too")
            self._seen.add(request_id)
            self._changed.notify_all()
            if self._under_way.total() >= MAX_UNDER_WAY:
                raise ResourceExhausted(f"{MAX_UNDER_WAY} requests are under way; ask again later")
            if client != ANONYMOUS and self._under_way[client] >= MAX_OF_A_CLIENT:
                raise ResourceExhausted(f"{MAX_OF_A_CLIENT} requests of this client are under way; ask again later")
            self._under_way[client] += 1
            self._waiting[request_id] = None
        try:
            yield
        finally:
            with self._changed:
                self._under_way -= Counter([client])  # drops what is zero
                self._waiting.pop(request_id, None)
                self._changed.notify_all()

    def offer(self, half: Half) -> None:
        """Let the leader call for it, until it is claimed, or no more under way."""
        with self._changed:
            self._waiting[half.request_id] = half
            self._changed.notify_all()

    def claim(self, request_id: bytes, patience: float) -> Half:
        """The half of that id, waiting so many seconds for it; raises PeerFailure, at once for one that was here and ended."""
        until = monotonic() + patience
        with self._changed:
            while True:
                half = self._waiting.get(request_id)
                if half is not None:
                    del self._waiting[request_id]
                    return half
                if self._whereabouts(request_id) is Whereabouts.GONE:
                    raise PeerFailure("request: its other half was refused, or given up")
                left = until - monotonic()
                if left <= 0:
                    raise PeerFailure("request: its other half did not come; the client has to send one to each party")
                self._changed.wait(left)

    def whereabouts(self, request_id: bytes) -> Whereabouts:
        """Whether the half of that id is still to be claimed, or was here and is no more."""
        with self._changed:
            return self._whereabouts(request_id)

    def _whereabouts(self, request_id: bytes) -> Whereabouts:
        if self._waiting.get(request_id) is not None:
            return Whereabouts.HERE
        gone = request_id in self._seen and request_id not in self._waiting
        return Whereabouts.GONE if gone else Whereabouts.UNKNOWN


def rows_of(data: bytes, rows: int, features: int, most: int) -> Words:
    """The share (rows, features) in a message; raises MalformedRequest."""
    if not 1 <= rows <= most:
        raise MalformedRequest(f"rows: expected 1 to {most} in one request, got {rows}")
    if len(data) != 8 * rows * features:
        raise MalformedRequest(
            f"share: expected {8 * rows * features} bytes ({rows} rows of {features} words), got {len(data)}"
        )
    return np.frombuffer(data, dtype="<u8").reshape(rows, features)
