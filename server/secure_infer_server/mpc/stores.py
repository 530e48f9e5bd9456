"""A party's stores of correlated randomness: filled in the background, each bundle handed out once.

Party 0 leads: it takes its oldest bundle and says its id to party 1, which claims that one. A dealer that is away disturbs
nobody while bundles remain; when they are used up, requests wait, first come, first served, until their deadline, and fail
with its state.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from secure_infer.errors import CorrelationMisuse, CorrelationsExhausted, MalformedRequest
from secure_infer.mpc.correlations import Bundle, Correlations, Recipe
from secure_infer.v1 import mpc_pb2
from secure_infer_server.mpc.endpoint import Identity
from secure_infer_server.mpc.inventory import Inventory, Level
from secure_infer_server.mpc.stock import Item, Stock
from secure_infer_server.mpc.subscription import Subscription, Wants

CAPACITY = 256 << 20


@dataclass(frozen=True)
class Drawn:
    """A bundle's correlations, and the epoch they belong to: 16 bytes, and this party's seed of the program's weight masks in
    it (`secure_infer.mpc.masks`), None for programs without. bytes: what the dealer sent for it."""

    correlations: Correlations
    epoch: bytes
    mask_seed: bytes | None
    bytes: int


@dataclass(frozen=True)
class Tallies:
    """Since the start: bundles received, handed out, and dropped unused; calls that found a store dry, and those of them
    that gave up; epochs."""

    received: int = 0
    used: int = 0
    dropped: int = 0
    dry: int = 0
    exhausted: int = 0
    epochs: int = 0


class Stores:
    """The stores of party 0 or 1. `start` opens the stream to the dealer; deadlines are of `time.monotonic`.

    They belong to the process that made them: in a fork every call raises CorrelationMisuse, since two processes with one
    bundle would use it twice.
    """

    def __init__(self, party: int, address: str, identity: Identity | None, capacity: int = CAPACITY) -> None:
        """address: the dealer's. capacity: bytes of bundles. Raises SettingsError."""
        self.party, self._address = party, address
        self._inventory = Inventory(party, capacity)
        self._heard = self._ever_heard = self._closed = False
        self._since = monotonic()
        self._process = os.getpid()
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._subscription = Subscription(party, address, identity, self)

    def start(self) -> None:
        self._subscription.start()

    def close(self) -> None:
        """Leave the dealer, and forget every bundle; calls that wait fail."""
        with self._changed:
            self._closed = True
            self._inventory.pause()
            self._inventory.void()
            self._changed.notify_all()
            for stock in self._inventory.stocks.values():
                for turn in stock.turns:
                    turn.notify()
        self._subscription.close()

    @property
    def epoch(self) -> bytes:
        """The id of the epoch that the stores' bundles belong to; empty before the first."""
        return self._inventory.epoch

    @property
    def connected(self) -> bool:
        """True while the dealer deals to both parties."""
        return self._inventory.dealing

    @property
    def state(self) -> str:
        """The dealer, in words."""
        seconds = monotonic() - self._since
        if self.connected:
            return f"the dealer at {self._address} is connected"
        if self._heard:
            return f"the dealer at {self._address} has waited for the other party for {seconds:.0f} s"
        if not self._ever_heard:
            return (
                f"the dealer at {self._address} has not answered since this party started, {seconds:.0f} s ago; "
                "start it, or check --dealer"
            )
        return f"the dealer at {self._address} has been away for {seconds:.0f} s"

    def register(self, recipe: Recipe, ahead: int = 1, *, model: str = "", keep: bool = False) -> None:
        """Keep `ahead` bundles of a recipe prepared, as memory allows; at both parties, or nothing is dealt.

        Idempotent; the largest `ahead` given counts. keep: for good, as for recipes known at the start; others make room for
        one another, the least recently used first. model: a name for metrics. Raises MalformedRequest or ResourceExhausted
        for a recipe that cannot be dealt or held.
        """
        self._require_own_process()
        with self._changed:
            self._inventory.register(recipe, ahead, model, keep)

    def release(self, recipe: Recipe) -> None:
        """Its bundles make room for others from now on."""
        with self._changed:
            stock = self._inventory.stocks.get(recipe.digest)
            if stock is not None:
                stock.kept = False

    def take(self, recipe: Recipe, deadline: float) -> Drawn:
        """The oldest bundle, for party 0, in the order of the calls; the recipe is registered where it was not.

        Raises CorrelationsExhausted when there is none before the deadline, and as `register` does.
        """
        self._require_own_process()
        with self._changed:
            stock = self._inventory.register(recipe, 1, "", False)
            item = self._next(stock, deadline)
            if item is None:
                self._inventory.counts["exhausted"] += 1
                raise CorrelationsExhausted(
                    f"correlations for {recipe.rows} rows of program {recipe.program[:12]}…: none came in time; {self.state}",
                    rows=recipe.rows,
                )
            epoch, seed = self._inventory.epoch, self._inventory.seeds.get(recipe.program)
        return _drawn(stock, item, epoch, seed)

    def claim(self, recipe: Recipe, identity: bytes, deadline: float) -> Drawn:
        """The bundle of that id, for party 1; the recipe is registered where it was not.

        Raises CorrelationMisuse, at once when the bundle was used or dropped, else when it does not come before the deadline;
        and as `register` does.
        """
        self._require_own_process()
        with self._changed:
            stock = self._inventory.register(recipe, 1, "", False)
            gone = self._inventory.gone
            self._wait(stock, deadline, lambda: stock.holds(identity) or identity in gone)
            item = self._inventory.pick(stock, identity)
            if item is None:
                what = "was used or dropped before" if identity in gone else "was not dealt to this party in this epoch"
                raise CorrelationMisuse(f"correlations {identity.hex()[:12]}…: this bundle {what}; {self.state}")
            epoch, seed = self._inventory.epoch, self._inventory.seeds.get(recipe.program)
        return _drawn(stock, item, epoch, seed)

    def masks(self, recipe: Recipe, deadline: float) -> tuple[bytes, bytes]:
        """(epoch, seed): this party's seed of the weight masks of the recipe's program. They come with its first bundle of an
        epoch, so the recipe is registered where it was not. Raises CorrelationsExhausted when they do not come before the
        deadline, and as `register` does."""
        self._require_own_process()
        with self._changed:
            stock = self._inventory.register(recipe, 1, "", False)
            seeds = self._inventory.seeds
            self._wait(stock, deadline, lambda: recipe.program in seeds)
            if recipe.program not in seeds:
                raise CorrelationsExhausted(
                    f"weight masks of program {recipe.program[:12]}…: none came in time; {self.state}"
                )
            return self._inventory.epoch, seeds[recipe.program]

    def levels(self) -> list[Level]:
        """What is held, by model and rows."""
        with self._changed:
            return self._inventory.levels()

    def tallies(self) -> Tallies:
        with self._changed:
            return Tallies(**self._inventory.counts)

    def heard(self) -> None:
        """For the stream: the dealer answered."""
        with self._changed:
            self._heard = self._ever_heard = True
            self._since = monotonic()

    def begin(self, epoch: bytes, wants: Wants) -> None:
        """For the stream: an epoch begins."""
        with self._changed:
            if not self._closed:
                self._inventory.begin(epoch, wants.put)
                self._changed.notify_all()

    def receive(self, message: mpc_pb2.DealResponse) -> None:
        """For the stream: masks or a bundle."""
        part = message.bundle
        with self._changed:
            if not self.connected:
                raise MalformedRequest("dealer: masks or a bundle outside an epoch")
            if message.HasField("masks"):
                self._inventory.add_masks(message.masks)
                self._changed.notify_all()
                return
            stock = self._inventory.stocks.get(part.recipe)
        item = None
        if stock is not None:  # expanded without the lock: requests need not wait for it
            item = stock.prepared(Bundle(part.id, part.recipe, part.seed, part.corrections))
        with self._changed:
            if not self._closed:
                self._inventory.add(part.recipe, part.id, item)
                self._changed.notify_all()
                if stock is not None:
                    _call_next(stock)

    def lost(self) -> None:
        """For the stream: it ended."""
        with self._changed:
            if self._heard:
                self._since = monotonic()
            self._heard = False
            self._inventory.pause()

    def _next(self, stock: Stock, deadline: float) -> Item | None:
        """The oldest bundle, once those who came before have theirs; None when that is not before the deadline."""
        if stock.bundles and not stock.turns:
            return self._inventory.oldest(stock)
        turn = threading.Condition(self._lock)

        def ready() -> bool:
            return bool(stock.bundles) and stock.turns[0] is turn

        self._inventory.counts["dry"] += 1
        stock.waiting += 1
        stock.turns.append(turn)
        try:
            turn.wait_for(lambda: ready() or self._closed, max(0.0, deadline - monotonic()))
            return self._inventory.oldest(stock) if ready() else None
        finally:
            stock.waiting -= 1
            stock.turns.remove(turn)
            _call_next(stock)

    def _wait(self, stock: Stock, deadline: float, there: Callable[[], bool]) -> None:
        """Until it is there, or the deadline; the stock stays meanwhile."""
        if there():
            return
        self._inventory.counts["dry"] += 1
        stock.waiting += 1
        self._changed.wait_for(lambda: there() or self._closed, max(0.0, deadline - monotonic()))
        stock.waiting -= 1

    def _require_own_process(self) -> None:
        if self._process != os.getpid():
            raise CorrelationMisuse("stores: they belong to the process that made them, not to a fork of it")


def _call_next(stock: Stock) -> None:
    """Wake whoever's turn it is, if there is a bundle; the lock is held."""
    if stock.bundles and stock.turns:
        stock.turns[0].notify()


def _drawn(stock: Stock, item: Item, epoch: bytes, seed: bytes | None) -> Drawn:
    """Without the lock: a bundle that was not kept expanded is expanded now."""
    ready = item if isinstance(item, Correlations) else Correlations(item, stock.recipe, stock.party)
    return Drawn(ready, epoch, seed, stock.bundle_bytes)
