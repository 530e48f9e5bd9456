"""Party 0's end of the lanes: listens, and hands out lanes to requests."""

from __future__ import annotations

import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotInTime
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from secure_infer.errors import MalformedRequest, PeerFailure, SettingsError
from secure_infer_server.mpc.frames import MAX_START, Hello, Misfit
from secure_infer_server.mpc.lane import Lane, Patience
from secure_infer_server.mpc.lanes import LANES, MAX_LANES, Lanes, complaint
from secure_infer_server.mpc.transport import Transport
from secure_infer_server.process import taken
from secure_infer_server.tls import Tls

_HANDSHAKES = 32  # at once; one more ends the oldest, so that slow strangers do not keep the peer out
_ACCEPT_SECONDS = 0.5


class LeaderLanes(Lanes):
    """Party 0's end. address: HOST:PORT to listen on, port 0 for any. tls: None for plain sockets, on loopback alone."""

    def __init__(self, address: str, tls: Tls | None, *, lanes: int = LANES, patience: Patience | None = None) -> None:
        super().__init__(0, address, tls, lanes, patience or Patience())
        self._listener: socket.socket | None = None
        self._idle: list[Lane] = []
        self._turns: deque[Future[Lane]] = deque()  # of requests that wait, in the order they came
        self._greeted: deque[Transport] = deque()

    def start(self) -> str:
        """Listen; returns HOST:PORT. Raises SettingsError when the address cannot be had."""
        try:
            family = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)[0][0]
            listener = socket.create_server((self._host, self._port), family=family, backlog=MAX_LANES)
        except OSError:
            raise SettingsError(f"--peer: {taken(self.address)}") from None
        listener.settimeout(_ACCEPT_SECONDS)
        self._port = listener.getsockname()[1]
        self._listener = listener
        self._run(self._accept, listener)
        return self.address

    @property
    def address(self) -> str:
        """Where it listens."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{host}:{self._port}"

    @property
    def level(self) -> int:
        """Lanes that are up; idle ones that the peer has closed are dropped first."""
        with self._changed:
            for lane in [lane for lane in self._idle if not lane.quiet]:
                self._drop(lane)
            return len(self._up)

    @contextmanager
    def lead(self, start: bytes, deadline: float, gone: Future[Any] | None = None) -> Iterator[Lane]:
        """A lane for one request, opened with `start` (at most 64 KiB), until deadline (time.monotonic).

        Raises PeerFailure when none is free by then, or `gone` is done before one is. At the end of the block the follower
        has agreed, or its error is raised; any other exception that leaves the block costs the lane.
        """
        if len(start) > MAX_START:
            raise MalformedRequest(f"request: its header takes {len(start)} bytes, at most {MAX_START} are sent")
        lane = self._started(start, deadline, gone)
        try:
            yield lane
            lane.finish()
        finally:
            self._give_back(lane)

    def close(self) -> None:
        self._closing.set()
        if self._listener is not None:
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)  # wakes its thread, which closes it
        super().close()
        with self._changed:
            for transport in self._greeted:
                transport.kill()
            self._hand_out()
            for lane in list(self._idle):
                self._drop(lane)

    def _started(self, start: bytes, deadline: float, gone: Future[Any] | None) -> Lane:
        while True:
            lane = self._taken(deadline, gone)
            try:
                lane.start(start, deadline)
            except PeerFailure:  # lost while idle, and nothing was asked on it yet
                self._give_back(lane)
            except BaseException:
                self._give_back(lane)
                raise
            else:
                return lane

    def _taken(self, deadline: float, gone: Future[Any] | None) -> Lane:
        """The next free lane that is this request's turn: whoever came first goes first, since the other party drops bundles
        of correlations that many others have passed."""
        while True:
            turn: Future[Lane] = Future()
            with self._changed:
                self._turns.append(turn)
                if gone is not None:
                    gone.add_done_callback(partial(self._end_turn, turn))
                self._hand_out()
            try:
                lane = turn.result(max(0.0, deadline - time.monotonic()))
            except NotInTime:
                with self._changed:
                    if not turn.done():
                        self._turns.remove(turn)
                        raise self._none_free() from None
                lane = turn.result()
            if lane.quiet:
                return lane
            self._give_back(lane, usable=False)

    def _end_turn(self, turn: Future[Lane], _: object) -> None:
        with self._changed, suppress(ValueError):  # that is, it has its lane
            self._turns.remove(turn)
            turn.set_exception(PeerFailure("request: its caller gave it up"))

    def _hand_out(self) -> None:
        """Idle lanes to those who wait; the condition is held."""
        if self._closing.is_set():
            while self._turns:
                self._turns.popleft().set_exception(self._none_free())
        while self._turns and self._idle:
            self._turns.popleft().set_result(self._idle.pop())

    def _none_free(self) -> PeerFailure:
        up = len(self._up)
        if up:
            why = "all were busy; ask again later, or give both parties more --lanes"
        elif not self._met and not self._last_complaint:
            why = f"party 0 listens for party 1 at {self.address}; nobody has connected since start (check --peer at party 1)"
        else:
            last = f"; last: {self._last_complaint}" if self._last_complaint else ""
            why = f"party 0 listens for party 1 at {self.address}; is party 1 running?{last}"
        return PeerFailure(f"peer: no free lane to the other party in time ({up} of {self._lanes} up); {why}")

    def _give_back(self, lane: Lane, *, usable: bool = True) -> None:
        with self._changed:
            if usable and lane.idle and self._up.get(lane.number) is lane and not self._closing.is_set():
                self._idle.append(lane)
                self._hand_out()
            else:
                self._drop(lane)

    def _drop(self, lane: Lane) -> None:
        """Close a lane that nobody uses; the condition is held."""
        lane.close()
        if lane in self._idle:
            self._idle.remove(lane)
        if self._up.get(lane.number) is lane:
            del self._up[lane.number]

    def _accept(self, listener: socket.socket) -> None:
        with listener:
            while not self._closing.is_set():
                try:
                    self._receive(Transport(listener.accept()[0]))
                except TimeoutError:
                    continue
                except (OSError, RuntimeError) as error:  # out of descriptors or threads, or the caller is gone
                    self._complain(f"a connection could not be accepted ({error})")
                    self._closing.wait(_ACCEPT_SECONDS)

    def _receive(self, transport: Transport) -> None:
        with self._changed:
            self._greeted.append(transport)
            if len(self._greeted) > _HANDSHAKES:
                self._greeted.popleft().kill()
        threading.Thread(target=self._greet, args=(transport,), name="greet", daemon=True).start()

    def _greet(self, transport: Transport) -> None:
        """Handshake with whoever connected, and take in the lane if it is the peer."""
        lane: Lane | None = None
        try:
            lane = self._made(transport)
        except PeerFailure as error:
            self._complain(complaint(error))
        finally:
            with self._changed, suppress(ValueError):
                self._greeted.remove(transport)
        if lane is not None:
            self._take_in(lane)

    def _vet(self, hello: Hello) -> None:
        with self._changed:
            rivals = self._rivals(hello.instance)
        if rivals:
            raise Misfit(
                f"another process already serves as party 1 ({rivals} of its lanes are up); end one of the two"
            )

    def _rivals(self, instance: bytes) -> int:
        """Lanes of another process that are up and not closed by it; the condition is held."""
        return sum(lane.instance != instance and not lane.ended for lane in self._up.values())

    def _take_in(self, lane: Lane) -> None:
        with self._changed:
            if self._closing.is_set() or self._rivals(lane.instance):
                lane.close()  # it comes again, and is told why
                return
            old = self._up.get(lane.number)
            if old in self._idle:
                self._drop(old)
            elif old is not None:
                old.kill()  # its user closes it
            self._idle.append(lane)
            self._add(lane)
            self._hand_out()
