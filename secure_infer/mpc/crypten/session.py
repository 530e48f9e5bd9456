"""What one call of a protocol works with, found by CrypTen's global functions in the thread that asks.

CrypTen keeps party, network and generators in globals of the process. Ours stand there once and look up the session of the
calling thread, so calls run side by side. One lock around whole calls would not do: each party would take it for another
request, and wait inside it for the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from secure_infer.errors import CorrelationMisuse
from secure_infer.mpc.correlations import Correlations
from secure_infer.mpc.link import Link
from secure_infer.mpc.streams import KeyedStream, derive, fresh_key


@dataclass(frozen=True)
class Session:
    """One party's call. streams: by CrypTen's names for its generators.

    "local" is this party's own, under a fresh key. "prev" and "next" are drawn alike by both parties, for sharings of zero:
    between two parties these hide nothing, since each knows both halves; what hides are the masks of the correlations.
    """

    party: int
    link: Link
    correlations: Correlations
    streams: Mapping[str, KeyedStream]


_CURRENT: ContextVar[Session | None] = ContextVar("secure_infer_crypten_session", default=None)


@contextmanager
def session(party: int, link: Link, correlations: Correlations) -> Iterator[None]:
    """Makes these the ones that CrypTen finds in this thread; nothing of them is left afterwards."""
    first, second = (KeyedStream(derive(correlations.id, f"crypten/pair/{end}")) for end in (party, 1 - party))
    streams = {"prev": first, "next": second, "local": KeyedStream(fresh_key())}
    token = _CURRENT.set(Session(party, link, correlations, streams))
    try:
        yield
    finally:
        _CURRENT.reset(token)


def active() -> bool:
    """Whether this thread is inside a session."""
    return _CURRENT.get() is not None


def current() -> Session:
    """This thread's session; raises CorrelationMisuse outside one."""
    found = _CURRENT.get()
    if found is None:
        raise CorrelationMisuse("crypten: it was called outside a request")
    return found
