"""One lane between two parties: a request at a time, in step; see `frames` for what is said."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import NoReturn

from secure_infer.errors import PeerFailure, SecureInferError
from secure_infer.mpc.streams import KeyedStream, derive, fresh_key
from secure_infer_server.mpc.frames import HEADER, HELLO_BYTES, Frame, Hello, Kind, Misfit, pack_refusal, unpack_refusal
from secure_infer_server.mpc.transport import Security, Transport

_SLOWEST = 1 << 20  # bytes a second that a long message may take at least
_JOINED = 64 << 10  # up to this, header and payload leave as one piece


@dataclass(frozen=True)
class Patience:
    """Seconds. message: for a message of the other party, whatever the request's deadline, and a second for each MiB of
    it; handshake: from connected to ready; retry: between attempts to connect, at first and at most."""

    message: float = 5.0
    handshake: float = 5.0
    retry: tuple[float, float] = (0.05, 1.0)


class _State(Enum):
    IDLE = "idle"  # in step, no request under way
    OPEN = "open"  # opened, and neither refused nor agreed
    AGREED = "agreed"  # between rounds
    BROKEN = "broken"  # a message is on its way, and if it fails for ever


class Lane:
    """One request's link (`secure_infer.mpc.link.Link`), for one thread; the next request finds it as new.

    instance: of the other party's process. rounds, sent: rounds and payload bytes of this party in this request. waited:
    seconds in exchange and agree. deadline: of the request (time.monotonic), set by `lead` for the leader; a
    follower may set its own.
    """

    def __init__(self, transport: Transport, hello: Hello, key: bytes, patience: Patience) -> None:
        self.number = hello.lane
        self.instance = hello.instance
        self.deadline = math.inf
        self.rounds = self.sent = 0
        self.waited = 0.0
        self._transport, self._key, self._patience = transport, key, patience
        self._leads = hello.party == 1  # the other party's hello
        self._request = 0
        self._zero: KeyedStream | None = None
        self._state = _State.IDLE
        self._skip = False

    @property
    def zero(self) -> KeyedStream:
        """Words that both parties know and no client does, the same at both: party 0 adds them to its answer, party 1
        takes them from its own. The stream is this request's, under a key of fresh nonces of this lane: no other request
        or lane has it, and no client chooses anything in it."""
        if self._zero is None:
            self._zero = KeyedStream(derive(self._key, f"zero-sharing {self._request}"))
        return self._zero

    def exchange(self, payload: bytes) -> bytearray:
        """One round: the peer's payload, of the same length.

        Raises PeerFailure, which ends the lane. The leader's first also raises the error that the follower refuses with.
        """
        if self._state not in (_State.OPEN, _State.AGREED):
            raise PeerFailure("lane: the request is over, nothing more can be exchanged")
        started = time.monotonic()
        first, self._state = self._state is _State.OPEN, _State.BROKEN
        size = len(payload)
        self.rounds += 1
        header = Frame(Kind.DATA, self._request, self.rounds, size).pack()
        limit = self._limit(size)
        if size <= _JOINED:
            self._transport.send(header + payload)
        else:
            self._transport.send(header, memoryview(payload))
        self.sent += size
        buffer = bytearray(HEADER.size + size)
        with memoryview(buffer) as view:
            got = self._transport.receive(view, HEADER.size, limit)
            if view[: HEADER.size] != header:
                self._differs(Frame.unpack(header), Frame.unpack(view), view[HEADER.size : got], first, limit)
            self._transport.receive(view[got:], len(buffer) - got, limit)
        self._transport.flush(limit)
        self._state = _State.AGREED
        self.waited += time.monotonic() - started
        del buffer[: HEADER.size]  # moves its start, copies nothing
        return buffer

    def agree(self) -> None:
        """For programs without a round: the follower agrees, the leader waits for it. After a round, nothing is left to
        do. No round may follow. Raises like `exchange`."""
        if self._state is not _State.OPEN:
            return
        started = time.monotonic()
        self._state = _State.BROKEN
        frame = Frame(Kind.AGREED, self._request, 0, 0)
        limit = self._limit(0)
        if self._leads:
            found = self._header(limit)
            if found != frame:
                self._differs(frame, found, memoryview(b""), True, limit)
        else:
            self._transport.send(frame.pack())
            self._transport.flush(limit)
        self._state = _State.IDLE
        self.waited += time.monotonic() - started

    # What follows is for those who hold lanes, not for those who evaluate on one.

    def start(self, header: bytes, deadline: float) -> None:
        """The leader's opening of the next request."""
        self._begin(deadline)
        self._transport.send(Frame(Kind.START, self._request, 0, len(header)).pack() + header)
        self._transport.flush(self._limit(0))
        self._state = _State.OPEN

    def await_start(self) -> bytes:
        """The header of the leader's next request, however long it takes."""
        found = self._header(math.inf)
        if self._skip and (found.kind, found.request, found.message) == (Kind.DATA, self._request, 1):
            self._discard(found.length)
            found = self._header(math.inf)
        self._begin(math.inf)
        if (found.kind, found.request, found.message) != (Kind.START, self._request, 0):
            raise PeerFailure(f"peer: expected START {self._request}.0, got {found}")
        header = bytes(self._payload(found.length, self._limit(0)))
        self._state = _State.OPEN
        return header

    def finish(self) -> None:
        """The request ends well, agreed by both. Raises like `agree`, and PeerFailure when the lane had failed."""
        self.agree()
        if self._state is _State.BROKEN:
            raise PeerFailure("lane: it failed during the request")
        self._state = _State.IDLE

    @property
    def idle(self) -> bool:
        """In step and without a request: after `finish`, or a refusal."""
        return self._state is _State.IDLE

    @property
    def refusable(self) -> bool:
        """Whether the follower may still refuse: it has sent nothing in this request."""
        return self._state is _State.OPEN and not self._leads

    def refuse(self, error: SecureInferError) -> None:
        """The follower's answer in place of its agreement. What the leader has sent already is skipped."""
        payload = pack_refusal(error)
        self._state = _State.BROKEN
        self.deadline = math.inf  # the request's, which may be why it is refused
        self._transport.send(Frame(Kind.REFUSED, self._request, 0, len(payload)).pack() + payload)
        self._transport.flush(self._limit(0))
        self._state, self._skip = _State.IDLE, True

    @property
    def quiet(self) -> bool:
        """False when the peer has closed an idle lane, or sent what it should not."""
        return self._transport.quiet

    @property
    def ended(self) -> bool:
        """True when the peer has closed it; for any thread."""
        return self._transport.ended

    def kill(self) -> None:
        """End it from another thread."""
        self._transport.kill()

    def close(self) -> None:
        self._state = _State.BROKEN
        self._transport.close()

    def _begin(self, deadline: float) -> None:
        self._request += 1
        self._zero = None
        self._state, self._skip = _State.BROKEN, False
        self.rounds = self.sent = 0
        self.waited = 0.0
        self.deadline = deadline

    def _limit(self, length: int) -> float:
        return min(self.deadline, time.monotonic() + self._patience.message + length / _SLOWEST)

    def _header(self, limit: float) -> Frame:
        return Frame.unpack(self._payload(HEADER.size, limit))

    def _payload(self, length: int, limit: float) -> bytearray:
        buffer = bytearray(length)
        with memoryview(buffer) as view:
            self._transport.receive(view, length, limit)
        return buffer

    def _discard(self, length: int) -> None:
        limit = self._limit(length)
        while length:
            length -= len(self._payload(min(length, _JOINED), limit))

    def _differs(self, expected: Frame, found: Frame, begun: memoryview, first: bool, limit: float) -> NoReturn:
        """Raise what the follower refused with, once all that was sent is through, or PeerFailure if it is no refusal.

        begun: what came after the frame's header. first: nothing was agreed yet.
        """
        refusal = Frame(Kind.REFUSED, self._request, 0, found.length)
        if not (self._leads and first and found == refusal and len(begun) <= found.length):
            raise PeerFailure(f"peer: expected {expected}, got {found}")
        payload = bytes(begun) + self._payload(found.length - len(begun), limit)
        self._transport.flush(limit)
        self._state = _State.IDLE
        raise unpack_refusal(payload)


def opened(
    transport: Transport,
    security: Security | None,
    hello: Hello,
    patience: Patience,
    vet: Callable[[Hello], None] = lambda hello: None,
) -> Lane:
    """A lane over a connected socket, in time; raises PeerFailure, and closes it, otherwise.

    hello: what this party says, its nonce fresh; party 0 takes the lane's number from party 1's. vet: raises Misfit for a party 1
    that is not to be taken in, which is told why.
    """
    deadline = time.monotonic() + patience.handshake
    try:
        if security is not None:
            transport.secure(security, deadline)
        if hello.party == 1:
            transport.send(hello.pack())
        other = Hello.unpack(_greeting(transport, deadline), 1 - hello.party)
        if hello.party == 0:
            try:
                _require_lanes(hello, other)
                vet(other)
            except Misfit as error:
                payload = pack_refusal(error)
                transport.send(Frame(Kind.REFUSED, 0, 0, len(payload)).pack() + payload)
                transport.flush(deadline)
                raise
            transport.send(replace(hello, lane=other.lane).pack())
        elif (other.lane, other.lanes) != (hello.lane, hello.lanes):
            raise PeerFailure(f"peer: expected lane {hello.lane} of {hello.lanes}, got {other.lane} of {other.lanes}")
        transport.flush(deadline)
    except Misfit:
        transport.close()
        raise
    except PeerFailure as error:
        transport.close()
        told = "the other party's log may say more"
        if hello.party == 1:  # it is the one that comes
            told += ", and --peer has to be where it awaits a party, not where clients come"
        raise PeerFailure(f"{error.message}, while a lane was made; {told}") from None
    except BaseException:
        transport.close()
        raise
    nonces = hello.nonce + other.nonce if hello.party == 0 else other.nonce + hello.nonce
    return Lane(transport, other, derive(nonces, "lane"), patience)


def fresh_hello(party: int, lane: int, lanes: int, instance: bytes) -> Hello:
    """A hello with a nonce that was never used."""
    return Hello(party, lane, lanes, instance, fresh_key())


def _greeting(transport: Transport, deadline: float) -> bytearray:
    """What should be the other party's hello; raises the refusal that party 0 sent in its place."""
    data = bytearray(HELLO_BYTES)
    with memoryview(data) as view:
        transport.receive(view[: HEADER.size], HEADER.size, deadline)
        frame = Frame.unpack(view)
        if frame == Frame(Kind.REFUSED, 0, 0, frame.length):
            payload = bytearray(frame.length)
            transport.receive(memoryview(payload), frame.length, deadline)
            raise Misfit(unpack_refusal(payload).message)
        transport.receive(view[HEADER.size :], HELLO_BYTES - HEADER.size, deadline)
    return data


def _require_lanes(own: Hello, other: Hello) -> None:
    if other.lanes != own.lanes:
        raise Misfit(f"--lanes: party 0 has {own.lanes}, party 1 has {other.lanes}; give both the same number")
