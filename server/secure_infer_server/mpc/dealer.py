"""The dealer: seats two parties, deals while both have room, and forgets what it dealt.

What it holds at any time is one bundle that is being made, what waits to be sent, and the weight masks of the epoch. A
stream serves one epoch: when a party goes or comes anew, the other's stream is ended too and both begin afresh, so that no
count, mask or bundle of before is ever mistaken for one of now.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from secure_infer.errors import CallFailed, MalformedRequest, SecureInferError
from secure_infer.mpc.correlations import Bundle, deal
from secure_infer.v1 import mpc_pb2
from secure_infer_server.mpc.epoch import Epoch, Order
from secure_infer_server.mpc.seats import Seat

log = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0  # between looks for parties that do not read


@dataclass(frozen=True)
class Figures:
    """The dealer so far: dealt bundles and the bytes of their corrections, epochs begun, recipes that could not be dealt;
    and now: parties present, recipes known, bytes of weight masks."""

    dealt: int
    bytes: int
    epochs: int
    refused: int
    parties: tuple[bool, bool]
    recipes: int
    mask_bytes: int


class Dealer:
    """One dealer with one thread that deals; `start`, `close`."""

    def __init__(self) -> None:
        self._seats: list[Seat | None] = [None, None]
        self._epoch: Epoch | None = None
        self._changed = threading.Condition()
        self._closed = False
        self._dealt = self._bytes = self._epochs = self._refused = 0
        self._thread = threading.Thread(target=self._work, name="dealer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """End both streams and stop dealing."""
        with self._changed:
            self._closed = True
            self._end_epoch()
            for seat in self._seats:
                if seat is not None:
                    seat.close()
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join(10)

    def join(self, party: int, hang_up: Callable[[], object]) -> Seat:
        """A seat for a new stream of a party, in place of an older one. hang_up: see `Seat`."""
        seat = Seat(party, hang_up, self._notify)
        with self._changed:
            older, self._seats[party] = self._seats[party], seat
            if older is not None:
                older.close(CallFailed(f"a newer stream of party {party} took this one's place"))
            self._end_epoch()
            if self._closed:
                seat.close()
            self._begin()
        return seat

    def leave(self, seat: Seat) -> None:
        """After a stream has ended: its epoch ends with it."""
        with self._changed:
            seat.close()
            if self._seats[seat.party] is seat:
                self._seats[seat.party] = None
                self._end_epoch()

    def want(self, seat: Seat, recipe: bytes, count: int) -> None:
        """Room for `count` bundles of a recipe, canonical JSON. Raises MalformedRequest or ResourceExhausted."""
        with self._changed:
            if seat.closed:
                return
            if self._epoch is None or seat not in self._epoch.seats:
                raise MalformedRequest("want: no epoch has begun; wait for it")
            self._epoch.want(seat.party, recipe, count)
            self._changed.notify()

    def figures(self) -> Figures:
        with self._changed:
            epoch = self._epoch
            present = (self._seats[0] is not None, self._seats[1] is not None)
            orders, mask_bytes = (len(epoch.orders), epoch.mask_bytes) if epoch else (0, 0)
            return Figures(self._dealt, self._bytes, self._epochs, self._refused, present, orders, mask_bytes)

    def _begin(self) -> None:
        first, second = self._seats
        if first is None or second is None or first.closed or second.closed:
            return
        self._epoch = Epoch((first, second))
        self._epochs += 1
        log.info("epoch %s begins", self._epoch.id.hex())
        self._changed.notify()

    def _end_epoch(self) -> None:
        """Both of its streams end: a party that is still there comes again, and its credits begin at zero."""
        epoch, self._epoch = self._epoch, None
        if epoch is None:
            return
        log.info("epoch %s ends", epoch.id.hex())
        for seat in epoch.seats:
            seat.close()
            if self._seats[seat.party] is seat:
                self._seats[seat.party] = None

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify()

    def _work(self) -> None:
        looked = monotonic()
        while True:
            with self._changed:
                if self._closed:
                    return
                if monotonic() - looked > _LOOK_SECONDS:
                    looked = monotonic()
                    self._drop_stalled(looked)
                epoch = self._epoch
                order = epoch.next() if epoch else None
                if epoch is None or order is None:
                    self._changed.wait(_LOOK_SECONDS)
                    continue
            self._deal(epoch, order)

    def _drop_stalled(self, now: float) -> None:
        for seat in self._seats:
            if seat is not None and seat.stalled(now):
                log.warning("party %d takes nothing; its stream is ended", seat.party)
                seat.close()
                self._seats[seat.party] = None
                self._end_epoch()

    def _deal(self, epoch: Epoch, order: Order) -> None:
        try:
            bundles = deal(order.recipe, epoch.masks(order.recipe))
        except Exception as error:
            # One recipe that cannot be dealt must not end the others.
            reason = error.message if isinstance(error, SecureInferError) else "unexpected"
            log.error("no correlations for %d rows of %s: %s", order.recipe.rows, order.recipe.program[:12], reason)
            if not isinstance(error, SecureInferError):
                log.exception("while dealing")
            with self._changed:
                order.refused = True
                self._refused += 1
            return
        for seat, bundle in zip(epoch.seats, bundles, strict=True):
            seat.send(_message(bundle))
        with self._changed:
            self._dealt += 1
            self._bytes += len(bundles[0].corrections)


def _message(bundle: Bundle) -> mpc_pb2.DealResponse:
    part = mpc_pb2.DealBundle(id=bundle.id, recipe=bundle.recipe, seed=bundle.seed, corrections=bundle.corrections)
    return mpc_pb2.DealResponse(bundle=part)
