"""Party 1's end of the lanes: connects, and serves the requests that party 0 leads."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable

from secure_infer.errors import PeerFailure, SecureInferError
from secure_infer_server.faults import unexpected
from secure_infer_server.mpc.lane import Lane, Patience
from secure_infer_server.mpc.lanes import LANES, Lanes, complaint
from secure_infer_server.mpc.transport import Transport
from secure_infer_server.tls import Tls

log = logging.getLogger(__name__)

Serve = Callable[[bytes, Lane], None]


class FollowerLanes(Lanes):
    """Party 1's end. address: HOST:PORT of party 0.

    serve(start, lane): evaluates a request on the lane, in the lane's own thread. A catalogued error that it raises before
    its first round is what the leader raises; any other, and any later, ends the lane. on_meeting: called once, when party 0
    has first taken this process in.
    """

    def __init__(
        self,
        address: str,
        tls: Tls | None,
        serve: Serve,
        *,
        lanes: int = LANES,
        patience: Patience | None = None,
        on_meeting: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(1, address, tls, lanes, patience or Patience())
        self._serve, self._on_meeting = serve, on_meeting

    def start(self) -> None:
        """Connect, in the background, now and whenever a lane is lost."""
        for number in range(self._lanes):
            self._run(self._follow, number)

    def _follow(self, number: int) -> None:
        first, most = self._patience.retry
        pause = first
        while not self._closing.is_set():
            try:
                try:
                    connected = socket.create_connection((self._host, self._port), self._patience.handshake)
                    transport = Transport(connected)
                except OSError as error:
                    self._absent(error)
                    self._closing.wait(pause)
                    pause = min(most, 2 * pause)
                    continue
                lane = self._connected(transport, number)
                pause = first
                try:
                    self._follow_on(lane)
                finally:
                    with self._changed:
                        self._up.pop(number, None)
                        lane.close()
            except PeerFailure as error:
                self._complain(complaint(error))
            except Exception:  # whatever it was, the lane must come back
                log.exception("a lane failed")
            self._closing.wait(pause)
            pause = min(most, 2 * pause)

    def _absent(self, error: OSError) -> None:
        """Nobody listens there: as usual when this party is started first, and news later."""
        where, why = f"{self._host}:{self._port}", error.strerror or type(error).__name__
        if self._met:
            self._complain(f"peer: party 0 does not answer at {where} any more ({why})")
        else:
            self._complain(f"waiting for party 0 at {where} ({why})", logging.INFO)

    def _connected(self, transport: Transport, number: int) -> Lane:
        lane = self._made(transport, number)
        with self._changed:
            first = not self._met
            self._add(lane)
            if self._closing.is_set():
                lane.kill()
        if first:
            self._on_meeting()
        return lane

    def _follow_on(self, lane: Lane) -> None:
        while True:
            start = lane.await_start()
            try:
                self._serve(start, lane)
                lane.finish()
            except Exception as error:
                known = error if isinstance(error, SecureInferError) else unexpected(log, "a follower's request")
                if not lane.refusable:
                    raise PeerFailure(known.message) from error
                lane.refuse(known)
