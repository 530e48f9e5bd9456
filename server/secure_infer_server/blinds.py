"""Blinds prepared ahead by a process of their own, bounded per key, each used once.

The process holds the clients' public keys it was given and sends back residues; this side keeps them as ciphertexts
ready to be added. When the pool is empty, or the process is gone, the request makes its own blind.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Set
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from secure_infer.ckks import seal
from secure_infer.ckks.blinding import Blinder
from secure_infer.ckks.keymaterial import Half
from secure_infer.ckks.plan import Plan

log = logging.getLogger(__name__)

_TAG = 64  # bytes of plan and key digests before the residues
_TURN = 4  # blinds made for one key before another's
_LEAST = 4  # blinds a key keeps when many are in use
_NICE = 19  # made ahead in time that nobody else wants: where there is none, who needs a blind makes it


def blind_bytes(plan: Plan) -> int:
    """Memory of one blind."""
    return 16 * plan.parameters.degree * plan.blind_level


def load_blind(plan: Plan, residues: bytes | memoryview) -> seal.Ciphertext:
    """A blind of another process of this server, ready to be added."""
    shape = (2, plan.blind_level, plan.parameters.degree)
    return seal.ring(plan.parameters).load(np.frombuffer(residues, np.uint64).reshape(shape))


def _prepare(connection: Connection) -> None:
    """The process: answers (plan, tag, key, count) with that many blinds; a tag alone is a stock to forget."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(_NICE)
    blinders: dict[bytes, Blinder] = {}
    while True:
        try:
            order = connection.recv()
        except (EOFError, OSError):
            return
        if isinstance(order, bytes):
            blinders.pop(order, None)
            continue
        plan, tag, public, count = order
        if tag not in blinders:
            blinders[tag] = Blinder(plan, public)
        for _ in range(count):
            try:
                connection.send_bytes(tag + blinders[tag].residues().tobytes())
            except OSError:
                return


@dataclass
class _Stock:
    tag: bytes
    plan: Plan
    public: Half
    capacity: int
    ready: deque[Any] = field(default_factory=deque)
    packed: bool = False
    pending: int = 0
    blinder: Blinder | None = None
    dropped: bool = False

    @property
    def least(self) -> int:
        """Bytes of what a stock needs to be worth having: the key, an encryptor for it, a few blinds."""
        return 4 * self.public[0].nbytes + _LEAST * blind_bytes(self.plan)


class _Maker:
    """The process that makes blinds, with a thread that asks it and a thread that takes what it made.

    The two never wait for each other, and no lock is held while talking: a process busy with making does not read, and
    one that nobody drains does not make. Keys take turns, `_TURN` blinds each.
    """

    def __init__(self, arrived: Callable[[bytes], None], lost: Callable[[], None]) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_prepare, args=(theirs,), name="secure-infer-blinds", daemon=True)
        self._process.start()
        theirs.close()
        self._arrived, self._lost = arrived, lost
        self._wanted: OrderedDict[bytes, tuple[_Stock, int]] = OrderedDict()
        self._forgotten: deque[bytes] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._threads = [
            threading.Thread(target=work, name=f"blinds-{work.__name__}", daemon=True)
            for work in (self._ask, self._take)
        ]
        for thread in self._threads:
            thread.start()

    def want(self, stock: _Stock, count: int) -> None:
        """Have `count` more blinds made for `stock`; returns at once."""
        with self._changed:
            waiting, left = self._wanted.get(stock.tag, (stock, 0))
            self._wanted[stock.tag] = (stock, count + (left if waiting is stock else 0))
            self._changed.notify()

    def forget(self, stock: _Stock) -> None:
        """Have nothing more made for a stock that was dropped, and its key forgotten before another is taken in."""
        with self._changed:
            self._wanted.pop(stock.tag, None)
            self._forgotten.append(stock.tag)
            self._changed.notify()

    def _ask(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._wanted or self._forgotten or self._ended)
                if self._ended:
                    return
                order = self._forgotten.popleft() if self._forgotten else self._turn()
            try:
                self._connection.send(order)
            except OSError:
                return

    def _turn(self) -> tuple[Plan, bytes, Half, int]:
        tag, (stock, count) = self._wanted.popitem(last=False)
        if count > _TURN:
            self._wanted[tag] = (stock, count - _TURN)
        return stock.plan, tag, stock.public, min(count, _TURN)

    def _take(self) -> None:
        try:
            while True:
                self._arrived(self._connection.recv_bytes())
        except (EOFError, OSError):
            pass
        except Exception:
            log.exception("a blind could not be taken in")
        self._end()
        self._lost()

    def _end(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify()

    def close(self) -> None:
        self._end()
        self._process.terminate()
        self._process.join(5)
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(5)
        self._connection.close()


class BlindPool:
    """Stocks of blinds by plan and key.

    capacity: bytes of blinds over all keys; stocks of the least recently used keys are dropped first.
    per_key: blinds kept for one plan and key. 0 switches preparation off.
    """

    def __init__(self, capacity: int, per_key: int) -> None:
        self._capacity, self._per_key = capacity, per_key
        self._stocks: OrderedDict[bytes, _Stock] = OrderedDict()
        self._lock = threading.Lock()
        self._maker: _Maker | None = None
        self._closed = threading.Event()
        self._losses = 0

    def start(self) -> None:
        """Start the process that prepares."""
        if self._per_key:
            self._maker = _Maker(self._arrived, self._lost)

    def close(self) -> None:
        self._closed.set()
        if self._maker is not None:
            self._maker.close()

    def taker(self, plan: Plan, digest: bytes, public: Half) -> BlindTaker:
        """Where one request takes its blinds from."""
        return BlindTaker(self, self._stock(plan, digest, public))

    def packed(self, plan: Plan, digest: bytes, public: Half, count: int, *, refill: bool) -> list[bytes]:
        """At most `count` blinds as residues, for another process to load, never given again. refill: make more then.

        A plan and key have blinds of this kind or of the other, as they were first asked for.
        """
        stock = self._stock(plan, digest, public, packed=True)
        found = [blind for blind in (self.take(stock) for _ in range(count)) if blind is not None]
        if refill:
            self.refill(stock)
        return found

    def warm(self, plan: Plan, digest: bytes, public: Half, *, packed: bool = False) -> None:
        """Begin to prepare blinds for a key that was just uploaded."""
        self.refill(self._stock(plan, digest, public, packed=packed))

    def keep(self, plans: Set[str]) -> None:
        """Drop the stocks of all other plans (digests in hex), which nobody can ask for any more."""
        with self._lock:
            for tag in [tag for tag, stock in self._stocks.items() if stock.plan.digest not in plans]:
                self._drop(self._stocks.pop(tag))

    def forget(self, plan: bytes, digest: bytes) -> None:
        """Drop the stock of a key that is held no more; plan: its digest. Else it would stay until others need the room."""
        with self._lock:
            stock = self._stocks.pop(plan + digest, None)
            if stock is not None:
                self._drop(stock)

    def level(self, plan: Plan, digest: bytes) -> int:
        """Blinds ready for that plan and key."""
        with self._lock:
            stock = self._stocks.get(bytes.fromhex(plan.digest) + digest)
            return len(stock.ready) if stock else 0

    def nudge(self, plan: Plan, digest: bytes) -> None:
        """Have a stock that is less than half full filled again."""
        with self._lock:
            stock = self._stocks.get(bytes.fromhex(plan.digest) + digest)
        if stock is not None:
            self.refill(stock)

    def take(self, stock: _Stock) -> Any:
        """A blind that nobody gets again, or None when none is ready."""
        with self._lock:
            return stock.ready.popleft() if stock.ready else None

    def refill(self, stock: _Stock) -> None:
        """Have blinds made when half of the stock is used."""
        with self._lock:
            share = self._share(stock)
            missing = share - len(stock.ready) - stock.pending
            if self._maker is None or stock.dropped or missing <= 0 or 2 * missing < share:
                return
            stock.pending += missing
            self._maker.want(stock, missing)  # under the lock: never after the stock was dropped

    def _share(self, stock: _Stock) -> int:
        """Blinds that one stock may hold: fewer when many keys are in use."""
        return min(stock.capacity, max(_LEAST, self._capacity // (len(self._stocks) or 1) // blind_bytes(stock.plan)))

    def _stock(self, plan: Plan, digest: bytes, public: Half, *, packed: bool = False) -> _Stock:
        tag = bytes.fromhex(plan.digest) + digest
        with self._lock:
            stock = self._stocks.get(tag)
            if stock is not None:
                self._stocks.move_to_end(tag)
                return stock
            capacity = max(self._per_key, 2 * plan.products) if self._per_key else 0
            stock = _Stock(tag, plan, public, capacity, packed=packed)
            if not capacity or stock.least > self._capacity:
                stock.dropped = True  # nothing is prepared for it: it serves this request and is forgotten
                return stock
            self._stocks[tag] = stock
            while sum(s.least for s in self._stocks.values()) > self._capacity:
                self._drop(self._stocks.popitem(last=False)[1])
            for other in self._stocks.values():
                while len(other.ready) > self._share(other):
                    other.ready.pop()
            return stock

    def _drop(self, stock: _Stock) -> None:
        stock.dropped = True
        stock.ready.clear()
        if self._maker is not None:
            self._maker.forget(stock)

    def _arrived(self, message: bytes) -> None:
        with self._lock:
            stock = self._stocks.get(message[:_TAG])
        if stock is None:
            return
        blind = message[_TAG:] if stock.packed else load_blind(stock.plan, memoryview(message)[_TAG:])
        with self._lock:
            stock.pending = max(0, stock.pending - 1)
            if len(stock.ready) < self._share(stock):  # else the share shrank, or it was made for a dropped stock
                stock.ready.append(blind)

    def _lost(self) -> None:
        """Start another process, after a pause that doubles with every loss; requests make their own blinds meanwhile."""
        with self._lock:
            maker, self._maker = self._maker, None
            for stock in self._stocks.values():
                stock.pending = 0
        if maker is not None:
            maker.close()
        self._losses += 1
        if not self._closed.wait(min(60.0, 0.5 * 2**self._losses)):
            log.error("the blinding process ended; starting another")
            self.start()


class BlindTaker:
    """Hands out blinds to one request, counting those that were ready and those it had to wait for."""

    def __init__(self, pool: BlindPool, stock: _Stock) -> None:
        self._pool, self._stock = pool, stock
        self.ready = self.inline = 0
        self.waited = 0.0

    def __call__(self, clock: Callable[[], float]) -> seal.Ciphertext:
        blind = self._pool.take(self._stock)
        if blind is not None:
            self.ready += 1
            return blind
        started = clock()
        if self._stock.blinder is None:
            self._stock.blinder = Blinder(self._stock.plan, self._stock.public)
        blind = self._stock.blinder.blind()
        self.inline += 1
        self.waited += clock() - started
        return blind

    def done(self) -> None:
        """After the request: let the stock be refilled."""
        self._pool.refill(self._stock)
